package counting

import _ "embed"

// Source is the text of this package, to be compiled elsewhere.
//
//go:embed counting.go
var Source string

// Package message is what the parts of the WAF tell each other: a request and
// an answer as rules see them, and what the rules say.
//
// Nothing in it parses, judges or logs.
package message

// A Request is a request as the rules see it. It is told what was parsed: an
// engine parses only the request line, the query string and the Cookie field
// itself.
type Request struct {
	Client string
	Port   int
	Method string
	URI    string // as sent
	Proto  string
	Host   string
	Header []Pair
	Body   Body
}

// A Response is an answer as the rules see it.
type Response struct {
	Status int
	Proto  string
	Header []Pair
	Body   []byte // nil where it is not to be judged
}

// A Pair is a name and a value. Repeated names are repeated pairs.
type Pair struct{ Name, Value string }

// A Kind is how a body is read.
type Kind uint8

// The kinds of bodies.
const (
	None Kind = iota
	Form
	Multipart
	JSON
	XML
	Text
	Opaque // not read at all
)

// A Body is a request's body as the rules see it: parsed, and only as far as
// it has been read.
type Body struct {
	Kind  Kind
	Text  string   // of a form or text: the whole of it
	Args  []Pair   // form fields, JSON leaves, multipart fields
	Attrs []string // of XML
	Texts []string // of XML
	Parts []Part   // of a multipart form
}

// A Part is one part of a multipart form, without its content.
type Part struct {
	Name      string
	File      bool
	FileNames []string // every reading of the file name
	Header    []Pair
	Size      int64
}

// A Verdict is what the rules say.
type Verdict struct {
	Deny      bool
	By        int // the denying rule
	Score     int
	Threshold int
	Hits      []Hit
	// Fired are the numbers of all rules that matched and did anything that a
	// verdict can depend on, in order. Engines are compared by it.
	Fired []int
	// Differs says how the verdicts of two engines differ, where two were asked.
	Differs string
}

// A Hit is a rule that matched and had a say in the verdict.
type Hit struct {
	Rule    int
	Score   int // added to the anomaly score; 0 for rules that only deny
	Message string
	Spots   []Spot
}

// A Spot is where a rule matched.
type Spot struct {
	Target Target // empty if nothing in the message
	Name   string
	Value  string
	Head   bool // matched by the rule's own first condition, so it can be excluded
}

// A Target is a part of a message that a rule can be kept from looking at.
type Target string

// The targets.
const (
	Args        Target = "args"         // query parameters, form, JSON and multipart fields
	ArgsNames   Target = "args_names"   // their names
	Headers     Target = "headers"      // values of header fields
	HeaderNames Target = "header_names" // their names
	Cookies     Target = "cookies"      // values of cookies
	CookieNames Target = "cookie_names" // their names
	URI         Target = "uri"          // the request line, path and query string as a whole
	BodyText    Target = "body"         // the raw text of a form or text body
	XMLContent  Target = "xml"          // texts and attributes of an XML body
	Files       Target = "files"        // file names and their fields' names
	PartHeaders Target = "part_headers" // header fields of multipart parts
	Answer      Target = "response"     // the answer's body and header
)

// A RuleInfo is what is known of a loaded rule.
type RuleInfo struct {
	Tags  []string
	Score int // what one match adds to the anomaly score; 0 if nothing
}

// An Engine applies a rule set to messages. It may be used by several
// goroutines at once.
type Engine interface {
	// Request judges a request. The exchange must be closed, also when the
	// request was denied; it is nil if there is an error. Neither keeps
	// anything of the message once it is closed.
	Request(*Request) (Exchange, Verdict, error)
	// Rules are the rules that are loaded, by number.
	Rules() map[int]RuleInfo
}

// An Exchange is what the rules remember of a request until its answer.
type Exchange interface {
	Response(*Response) (Verdict, error)
	Close()
}

// A Continuer is an [Exchange] that judges an answer on, after its beginning.
type Continuer interface {
	Exchange
	// More judges a further piece of the answer's body, together with what the
	// beginning has scored. Pieces may overlap. It may be asked until it
	// denies, and keeps nothing of the piece.
	More(piece []byte) (Verdict, error)
}

package seclang

import "strings"

// A Variable is a named part of a message, or of what rules remember.
type Variable uint8

// The variables that rules may read.
const (
	Unknown Variable = iota // none: a literal text in a Macro
	Args
	ArgsNames
	ArgsGet
	ArgsGetNames
	ArgsPost
	ArgsPostNames
	ArgsCombinedSize
	ArgumentsLimitReached
	Files
	FilesNames
	FilesSizes
	FilesCombinedSize
	HighestSeverity
	MatchedVar
	MatchedVarName
	MatchedVars
	MatchedVarsNames
	MultipartFilename
	MultipartName
	MultipartPartHeaders
	MultipartStrictError
	QueryString
	RemoteAddr
	RemotePort
	ReqbodyError
	ReqbodyErrorMsg
	ReqbodyProcessor
	RequestBasename
	RequestBody
	RequestBodyLength
	RequestCookies
	RequestCookiesNames
	RequestFilename
	RequestHeaders
	RequestHeadersNames
	RequestLine
	RequestMethod
	RequestProtocol
	RequestURI
	RequestURIRaw
	RequestXML
	ResponseBody
	ResponseContentLength
	ResponseContentType
	ResponseHeaders
	ResponseHeadersNames
	ResponseProtocol
	ResponseStatus
	RuleMeta // RULE: id, msg, severity, … of the rule itself
	ServerName
	TX
	URIParseError
	UniqueID
	XML
	numVariables
)

var names = [numVariables]string{
	Args: "ARGS", ArgsNames: "ARGS_NAMES", ArgsGet: "ARGS_GET", ArgsGetNames: "ARGS_GET_NAMES", ArgsPost: "ARGS_POST",
	ArgsPostNames: "ARGS_POST_NAMES", ArgsCombinedSize: "ARGS_COMBINED_SIZE", ArgumentsLimitReached: "ARGUMENTS_LIMIT_REACHED",
	Files: "FILES", FilesNames: "FILES_NAMES", FilesSizes: "FILES_SIZES", FilesCombinedSize: "FILES_COMBINED_SIZE",
	HighestSeverity: "HIGHEST_SEVERITY", MatchedVar: "MATCHED_VAR", MatchedVarName: "MATCHED_VAR_NAME", MatchedVars: "MATCHED_VARS",
	MatchedVarsNames: "MATCHED_VARS_NAMES", MultipartFilename: "MULTIPART_FILENAME", MultipartName: "MULTIPART_NAME",
	MultipartPartHeaders: "MULTIPART_PART_HEADERS", MultipartStrictError: "MULTIPART_STRICT_ERROR", QueryString: "QUERY_STRING",
	RemoteAddr: "REMOTE_ADDR", RemotePort: "REMOTE_PORT", ReqbodyError: "REQBODY_ERROR", ReqbodyErrorMsg: "REQBODY_ERROR_MSG",
	ReqbodyProcessor: "REQBODY_PROCESSOR", RequestBasename: "REQUEST_BASENAME", RequestBody: "REQUEST_BODY",
	RequestBodyLength: "REQUEST_BODY_LENGTH", RequestCookies: "REQUEST_COOKIES", RequestCookiesNames: "REQUEST_COOKIES_NAMES",
	RequestFilename: "REQUEST_FILENAME", RequestHeaders: "REQUEST_HEADERS", RequestHeadersNames: "REQUEST_HEADERS_NAMES",
	RequestLine: "REQUEST_LINE", RequestMethod: "REQUEST_METHOD", RequestProtocol: "REQUEST_PROTOCOL", RequestURI: "REQUEST_URI",
	RequestURIRaw: "REQUEST_URI_RAW", RequestXML: "REQUEST_XML", ResponseBody: "RESPONSE_BODY",
	ResponseContentLength: "RESPONSE_CONTENT_LENGTH", ResponseContentType: "RESPONSE_CONTENT_TYPE", ResponseHeaders: "RESPONSE_HEADERS",
	ResponseHeadersNames: "RESPONSE_HEADERS_NAMES", ResponseProtocol: "RESPONSE_PROTOCOL", ResponseStatus: "RESPONSE_STATUS",
	RuleMeta: "RULE", ServerName: "SERVER_NAME", TX: "TX", URIParseError: "URI_PARSE_ERROR", UniqueID: "UNIQUE_ID", XML: "XML",
}

// String returns the name that rules use.
func (v Variable) String() string {
	if v < numVariables {
		return names[v]
	}
	return "UNKNOWN"
}

var byName = func() map[string]Variable {
	m := make(map[string]Variable, numVariables)
	for v, n := range names {
		if n != "" {
			m[n] = Variable(v)
		}
	}
	return m
}()

// Lookup finds a variable by its name, in any case.
func Lookup(name string) (Variable, bool) {
	v, ok := byName[strings.ToUpper(name)]
	return v, ok
}

// Keyed reports whether the variable has values under keys, of which a rule
// may select some.
func (v Variable) Keyed() bool {
	switch v {
	case Args, ArgsNames, ArgsGet, ArgsGetNames, ArgsPost, ArgsPostNames, Files, FilesNames, FilesSizes, MatchedVars, MatchedVarsNames,
		MultipartFilename, MultipartName, MultipartPartHeaders, RequestCookies, RequestCookiesNames, RequestHeaders,
		RequestHeadersNames, RequestXML, ResponseHeaders, ResponseHeadersNames, RuleMeta, TX, XML:
		return true
	}
	return false
}

// CaseSensitive reports whether selectors compare keys as they stand.
func (v Variable) CaseSensitive() bool {
	switch v {
	case Args, ArgsNames, ArgsGet, ArgsGetNames, ArgsPost, ArgsPostNames:
		return true
	}
	return false
}

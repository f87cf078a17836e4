package seclang

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// settings are the directives that are recorded, by lower-case name, with what
// their value must be. What bodies and logs are read and written is the
// gateway's affair; those are taken for the sake of files that have them.
var settings = map[string]func(value string) error{
	"secruleengine":                  oneOf("On", "Off", "DetectionOnly"),
	"secargumentslimit":              positive,
	"secrequestbodyaccess":           oneOf("On", "Off"),
	"secrequestbodylimit":            number,
	"secrequestbodyinmemorylimit":    number,
	"secrequestbodynofileslimit":     number,
	"secrequestbodylimitaction":      oneOf("Reject", "ProcessPartial"),
	"secrequestbodyjsondepthlimit":   positive,
	"secresponsebodyaccess":          oneOf("On", "Off"),
	"secresponsebodylimit":           number,
	"secresponsebodylimitaction":     oneOf("Reject", "ProcessPartial"),
	"secresponsebodyjsondepthlimit":  positive,
	"secresponsebodymimetype":        anything,
	"secresponsebodymimetypesclear":  nothing,
	"secrxprefilter":                 oneOf("On", "Off"),
	"secauditengine":                 oneOf("On", "Off", "RelevantOnly"),
	"secauditlog":                    anything,
	"secauditlogtype":                oneOf("Serial", "Concurrent", "HTTPS", "Syslog"),
	"secauditlogformat":              oneOf("JSON", "JsonLegacy", "Native", "OCSF"),
	"secauditlogstoragedir":          anything,
	"secauditlogdirmode":             octal,
	"secauditlogfilemode":            octal,
	"secauditlogrelevantstatus":      expression,
	"secauditlogparts":               auditParts,
	"secdatadir":                     anything,
	"sectmpdir":                      anything,
	"secuploaddir":                   anything,
	"secuploadfilemode":              octal,
	"secuploadfilelimit":             number,
	"secuploadkeepfiles":             oneOf("On", "Off", "RelevantOnly"),
	"secdebuglog":                    anything,
	"secdebugloglevel":               debugLevel,
	"seccomponentsignature":          anything,
	"secserversignature":             anything,
	"secwebappid":                    anything,
	"secsensorid":                    anything,
	"seccollectiontimeout":           anything,
	"secpcrematchlimit":              anything,
	"secpcrematchlimitrecursion":     anything,
	"secunicodemap":                  anything,
	"secruleperftime":                anything,
	"secargumentseparator":           only("&"),
	"seccookieformat":                only("0"),
	"sechashengine":                  only("Off"),
	"secconnengine":                  only("Off"),
	"secignorerulecompilationerrors": notIgnoring,
}

// idle are the directives that Coraza reads and does nothing about. Who
// writes them expects something of them.
var idle = strings.Fields(`secconnreadstatelimit secconnwritestatelimit secgsblookupdb sechashkey sechashmethodpm sechashmethodrx
	sechashparam sechttpblkey secruleupdatetargetbymsg secrulescript`)

func unknownDirective(lower string) error {
	switch {
	case lower == "secruleupdatetargetbymsg":
		return mistake("does nothing, in Coraza neither; write SecRuleUpdateTargetById")
	case slices.Contains(idle, lower):
		return mistake("does nothing, in Coraza neither; take it out")
	case lower == "secremoterules" || lower == "secremoterulesfailaction":
		return mistake("rules are read from files only; write Include")
	}
	return mistake("there is no such directive")
}

func anything(value string) error {
	if value == "" {
		return mistake("a value is missing")
	}
	return nil
}

func nothing(value string) error {
	if value != "" {
		return mistake("takes no value")
	}
	return nil
}

// oneOf takes words in any case.
func oneOf(words ...string) func(string) error {
	return func(value string) error {
		for _, w := range words {
			if strings.EqualFold(value, w) {
				return nil
			}
		}
		return mistake("%q must be %s", value, strings.Join(words, ", "))
	}
}

// only takes the one value that asks for nothing: with another, Coraza does
// nothing either.
func only(word string) func(string) error {
	return func(value string) error {
		if !strings.EqualFold(value, word) {
			return mistake("%q does nothing, in Coraza neither; take the directive out", value)
		}
		return nil
	}
}

func number(value string) error {
	if _, err := strconv.ParseInt(value, 10, 64); err != nil {
		return mistake("%q must be a number", value)
	}
	return nil
}

func positive(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n <= 0 {
		return mistake("%q must be a number above 0", value)
	}
	return nil
}

func octal(value string) error {
	if _, err := strconv.ParseInt(value, 8, 32); err != nil {
		return mistake("%q must be an octal number, like 0600", value)
	}
	return nil
}

func debugLevel(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 0 || n > 9 {
		return mistake("%q must be a number from 0 to 9", value)
	}
	return nil
}

func expression(value string) error {
	if _, err := regexp.Compile(value); err != nil || value == "" {
		return mistake("%q must be a regular expression", value)
	}
	return nil
}

func auditParts(value string) error {
	if len(value) < 2 || value[0] != 'A' || value[len(value)-1] != 'Z' || strings.Trim(value[1:len(value)-1], "BCDEFGHIJK") != "" {
		return mistake("%q must be A, letters from B to K, and Z", value)
	}
	return nil
}

// notIgnoring refuses to go on without rules that cannot be read.
func notIgnoring(value string) error {
	if strings.EqualFold(value, "On") {
		return unsupported("to leave out rules that cannot be read")
	}
	return oneOf("Off")(value)
}

// Package match tells quickly what of a rule set cannot match a text, and
// exactly whether a pattern does.
//
// A [Regexp] answers as the patterns of Coraza's @rx do, by regexp or
// binaryregexp, but in linear time with one step a byte. Its [Requirement]
// says what every text holds that it matches, so that one [Automaton] for all
// patterns, and the [Presence] of bytes, sort out the many that cannot match.
// The requirement may be met where the pattern does not match, never the other
// way round.
//
// It knows nothing of rules, transformations or requests. Texts are not
// bounded here; memory is, whatever the texts.
package match

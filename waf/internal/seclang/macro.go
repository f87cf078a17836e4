package seclang

import "strings"

// parseMacro reads a text with %{variables}. Coraza takes no empty one.
func parseMacro(text string) (Macro, error) {
	if text == "" {
		return nil, mistake("a value is missing")
	}
	var m Macro
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "%{")
		if before != "" {
			m = append(m, Token{Text: before})
		}
		if !found {
			break
		}
		inside, after, closed := strings.Cut(after, "}")
		if !closed {
			return nil, mistake("%q: %%{ without }", text)
		}
		t, err := parseToken(inside)
		if err != nil {
			return nil, err
		}
		m = append(m, t)
		rest = after
	}
	return m, nil
}

func parseToken(inside string) (Token, error) {
	for _, c := range []byte(inside) {
		if !isWord(c) && !strings.ContainsRune("[].-", rune(c)) {
			return Token{}, mistake("%%{%s}: a variable and its key are made of letters, digits and [ ] . _ -", inside)
		}
	}
	if strings.HasSuffix(inside, ".") {
		return Token{}, mistake("%%{%s}: the key is missing", inside)
	}
	name, key, _ := strings.Cut(inside, ".")
	v, err := lookup(name)
	if err != nil {
		return Token{}, err
	}
	return Token{Text: inside, Var: v, Key: strings.ToLower(key)}, nil
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// literal is a Macro without variables.
func literal(text string) Macro {
	if text == "" {
		return nil
	}
	return Macro{{Text: text}}
}

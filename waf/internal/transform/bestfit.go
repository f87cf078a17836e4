package transform

// bestFit is the byte that stands for a UTF-16 unit: what code page 20127
// (ASCII) takes for its best fit, else the lower half of the unit.
func bestFit(u int) byte {
	if u < len(fits) && fits[u] != 0 {
		return fits[u]
	}
	if 0xff01 <= u && u <= 0xff5e { // full-width ASCII
		return byte(u - 0xfee0)
	}
	return byte(u)
}

// fits are the best fits below U+2123.
var fits = func() (t [0x2123]byte) {
	for _, f := range []string{
		" \u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006",
		"!¡",
		"\"\u02ba\u030e\u201c\u201d\u201e",
		"$¤",
		"'\u02b9\u02bc\u02c8\u2018\u2019\u2032",
		",¸\u201a",
		"-\u00ad\u2010\u2011\u2013\u2014",
		".·\u2022\u2026",
		"1¹",
		"2²",
		"3³",
		"<«\u2039",
		">»\u203a",
		"AÀÁÂÃÄÅÆĀĂĄǍǞ",
		"C©ÇĆĈĊČ",
		"DÐĎĐƉ",
		"EÈÉÊËĒĔĖĘĚ",
		"FƑ",
		"GĜĞĠĢǤǦ",
		"HĤĦ",
		"IÌÍÎÏĨĪĬĮİƗǏ",
		"JĴ",
		"KĶǨ",
		"LĹĻĽŁ",
		"NÑŃŅŇ",
		"OÒÓÔÕÖØŌŎŐŒƟƠǑǪǬ",
		"R®ŔŖŘ",
		"SŚŜŞŠ",
		"TŢŤŦƮ™",
		"UÙÚÛÜŨŪŬŮŰŲƯǓǕǗǙǛ",
		"WŴ",
		"Y¥ÝŶŸ",
		"ZŹŻŽ",
		"^\u02c4\u02c6\u0302",
		"_\u02cd\u0331\u0332",
		"`\u02cb\u0300\u2035",
		"aªàáâãäåæāăąǎǟ",
		"bƀ",
		"c¢çćĉċč",
		"dďđ",
		"eèéêëēĕėęě",
		"fƒ",
		"gĝğġģǥǧɡ",
		"hĥħ",
		"iìíîïĩīĭįıǐ",
		"jĵǰ",
		"kķǩ",
		"lĺļľłƚ",
		"nñńņň",
		"oºòóôõöøōŏőœơǒǫǭ",
		"rŕŗř",
		"sśŝşš",
		"tţťŧƫ",
		"uùúûüũūŭůűųưǔǖǘǚǜ",
		"wŵ",
		"yýÿŷ",
		"zżžƶ",
		"|¦",
		"~\u02dc\u0303",
	} {
		for _, r := range f[1:] {
			t[r] = f[0]
		}
	}
	return t
}()

package traffic

import (
	"fmt"
	"net/url"
	"strings"
)

const host = "shop.example.com"

// browser is what one browser says in every request.
const browser = `Host: ` + host + `
Connection: keep-alive
sec-ch-ua: "Chromium";v="149", "Google Chrome";v="149", "Not.A/Brand";v="24"
sec-ch-ua-mobile: ?0
sec-ch-ua-platform: "Linux"
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-GB,en;q=0.9,nl;q=0.8
Sec-Fetch-Site: same-origin
`

const navigation = browser + `Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8
Sec-Fetch-Mode: navigate
Sec-Fetch-User: ?1
Sec-Fetch-Dest: document
Upgrade-Insecure-Requests: 1
`

const script = browser + `Accept: application/json
Sec-Fetch-Mode: cors
Sec-Fetch-Dest: empty
Origin: http://` + host + `
`

var (
	navigationLines = strings.ReplaceAll(navigation, "\n", "\r\n")
	scriptLines     = strings.ReplaceAll(script, "\n", "\r\n")
)

// navigate writes the rest of the request line and the header of a browser
// that opens a page.
func (m *maker) navigate() {
	m.wire.WriteString(" HTTP/1.1\r\n" + navigationLines)
	m.visitor()
}

// call writes the same for a page's script that sends something.
func (m *maker) call(media string) {
	m.wire.WriteString(" HTTP/1.1\r\n" + scriptLines + "Content-Type: " + media + "\r\n")
	m.visitor()
}

// visitor writes what differs from visitor to visitor.
func (m *maker) visitor() {
	fmt.Fprintf(&m.wire, "Referer: http://%s%s\r\nCookie: session=%s; theme=%s; seen=%d\r\n", host, m.path(), m.hex(16), m.word(), m.number(1e9))
}

// argument writes one argument of a query.
func (m *maker) argument() {
	switch m.number(5) {
	case 0:
		fmt.Fprintf(&m.wire, "page=%d", m.number(10_000))
	case 1:
		fmt.Fprintf(&m.wire, "q=%s", escape(m.prose(2+m.number(5))))
	case 2:
		fmt.Fprintf(&m.wire, "ref=%s", m.hex(12))
	case 3:
		fmt.Fprintf(&m.wire, "mail=%s", escape(m.mail()))
	default:
		fmt.Fprintf(&m.wire, "sort=%s", m.word())
	}
}

// value is what somebody may put into a field of a form.
func (m *maker) value() string {
	switch m.number(6) {
	case 0:
		return fmt.Sprint(m.number(1e6))
	case 1:
		return m.mail()
	case 2:
		return m.hex(10)
	case 3:
		return m.name()
	case 4:
		return fmt.Sprintf("20%02d-%02d-%02d", m.number(30), 1+m.number(12), 1+m.number(28))
	default:
		return m.prose(3 + m.number(4))
	}
}

// attack is an SQL injection: a few shapes with other words in them.
func (m *maker) attack() string {
	w, n := m.word(), m.number(1e6)
	switch m.number(5) {
	case 0:
		return fmt.Sprintf("%d' UNION SELECT %s, password FROM users -- -", n, w)
	case 1:
		return fmt.Sprintf("%s' OR '%d'='%d' -- ", w, n, n)
	case 2:
		return fmt.Sprintf("%d AND (SELECT %d FROM (SELECT(SLEEP(%d)))%s)", n, n, 1+m.number(9), w)
	case 3:
		return fmt.Sprintf("%s'; DROP TABLE %s_%d; -- ", w, m.word(), n)
	default:
		return fmt.Sprintf("%d' AND 1=CONVERT(int,(SELECT @@version)) AND '%s'='%s", n, w, w)
	}
}

func (m *maker) path() string {
	return fmt.Sprintf("/%s/%s-%s-%d", m.word(), m.word(), m.word(), m.number(1e6))
}

func (m *maker) name() string {
	return names[m.number(len(names))] + " " + places[m.number(len(places))]
}

func (m *maker) place() string { return places[m.number(len(places))] }

func (m *maker) mail() string {
	return fmt.Sprintf("%s.%s%d@example.com", m.word(), m.word(), m.number(1000))
}

func (m *maker) hex(bytes int) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 2*bytes)
	for i := range b {
		b[i] = digits[m.number(16)]
	}
	return string(b)
}

func (m *maker) prose(words int) string {
	var b strings.Builder
	for i := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(m.word())
	}
	return b.String()
}

func (m *maker) word() string { return words[m.number(len(words))] }

func (m *maker) number(below int) int { return m.rand.IntN(below) }

func escape(s string) string { return url.QueryEscape(s) }

var fields = strings.Fields(`first last street city zip phone mail unit birthday lang
	currency theme company role newsletter contact team floor note ref`)

var names = strings.Fields("Anna Bram Carla David Emma Femke Gijs Hanna Ivo Julia Koen Lotte Maria Nina Olga Peter Rosa Sara Tom Vera")

var places = strings.Fields("Amersfoort Breda Delft Eindhoven Franeker Gouda Haarlem Kampen Leiden Meppel Nijmegen Oss Tilburg Utrecht Venlo Zwolle")

var words = strings.Fields(`able about above acre amber anchor apple april autumn badge baker balcony barley basin beach beam
	bench berry birch blanket blue board boat bottle bowl branch brass bread breeze bridge bright brown brush bucket
	button cabin candle canvas carpet cedar chair chalk cherry chestnut circle clay clear cloud clover coast coffee
	copper coral corner cotton cream crystal curtain daisy dark deep desk door dusk early earth elm ember engine
	evening fabric feather fern field flame flour flower forest frame fresh frost garden garlic gentle ginger glass
	gold grain grape grass gravel green grey hammer handle harbour harvest hazel heather hedge hill honey house iron
	island ivory jacket jar juniper kettle kitchen lake lamp lantern large laurel leaf leather lemon light lilac linen
	little maple marble market meadow mellow melon mild mint mirror morning moss mug narrow nutmeg oak oat ocean olive
	onion orange orchard oven paint paper path pear pebble pepper pine plain plate plum pocket pond poppy porch
	pottery quiet quilt rain red reed ribbon river rope rose round rug saffron sage salt sand saucer season shade shelf
	shell shore silk silver simple slate small smooth soft spoon spring square stone straw summer sugar table tall tea
	thyme timber tin towel trail tray tulip valley vase velvet violet walnut warm water wax wheat white wide willow
	window winter wood wool yarn yellow`)

package waf_test

import (
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

const good = "--b0undary\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b0undary--\r\n"

func TestMultipart(t *testing.T) {
	c := func(name, body string) merlontest.Case {
		return merlontest.Case{Name: name, Request: typed(formType), Prepare: with(body), Want: waf.Malformed, Status: 400}
	}
	swap := func(name, old, new string) merlontest.Case {
		if !strings.Contains(good, old) {
			t.Fatal(name)
		}
		return c(name, strings.Replace(good, old, new, 1))
	}
	ok := func(c merlontest.Case) merlontest.Case { c.Want, c.Status = waf.Clean, 0; return c }
	attack := func(c merlontest.Case) merlontest.Case { c.Want, c.Status = waf.Attack, 403; return c }
	disposition := func(name, value string) merlontest.Case {
		return swap(name, `form-data; name="a"`, value)
	}
	run(t, waf.Config{}, []merlontest.Case{
		ok(c("a form", good)),
		ok(c("without the last line end", strings.TrimSuffix(good, "\r\n"))),
		ok(c("with a line end before", "\r\n"+good)),
		ok(swap("part with a type", "\r\n\r\nx", "\r\nContent-Type: application/json\r\n\r\n{}")),
		ok(disposition("name as a token", "form-data; name=a")),
		ok(disposition("file name in UTF-8", `form-data; name="a"; filename="café.txt"`)),
		ok(disposition("file name in both ways", `form-data; name="a"; filename="cafe.txt"; filename*=UTF-8''caf%C3%A9.txt`)),
		ok(c("dashes in a field", strings.Replace(good, "\r\nx\r\n", "\r\n--b0\r\n--\r\n", 1))),
		c("LF only", strings.ReplaceAll(good, "\r\n", "\n")),
		c("LF in the header", strings.Replace(good, "\"\r\n\r\n", "\"\n\n", 1)),
		c("preamble", "hello\r\n"+good),
		c("epilogue", good+"hello"),
		c("two closing delimiters", good+"--b0undary--\r\n"),
		c("no end", strings.TrimSuffix(good, "--b0undary--\r\n")),
		c("end cut", strings.TrimSuffix(good, "-\r\n")),
		c("empty part", "--b0undary\r\n--b0undary--\r\n"),
		c("wrong boundary", strings.ReplaceAll(good, "b0undary", "other")),
		swap("space after the delimiter", "--b0undary\r\nC", "--b0undary \r\nC"),
		swap("delimiter that goes on", "x\r\n--b0undary--", "x\r\n--b0undaryX\r\n--b0undary--"),
		swap("delimiter in a line", "x\r\n", "x--b0undary\r\n"),
		swap("closing delimiter in a line", "x\r\n--b0undary--", "xyz--b0undary--"),
		swap("closing delimiter after a bare LF", "x\r\n--b0undary--", "xyz\n--b0undary--"),
		swap("delimiter after a bare LF", "x\r\n", "x\n--b0undary\nContent-Disposition: form-data; name=\"b\"\n\ny\r\n"),
		swap("delimiter after a bare CR", "x\r\n", "x\r--b0undary\r\n"),
		swap("delimiter instead of content", "\r\n\r\nx\r\n--", "\r\n\r\n--"),
		swap("no disposition", "Content-Disposition", "Content-Type"),
		swap("space before the colon", "Content-Disposition:", "Content-Disposition :"),
		swap("folded header line", "form-data; name", "form-data;\r\n name"),
		swap("control character", "form-data", "form-data\x00"),
		swap("repeated header field", "Content-Disp", "Content-Disposition: form-data; name=\"b\"\r\nContent-Disp"),
		swap("header line without a colon", "Content-Disp", "hello\r\nContent-Disp"),
		swap("long header", "form-data;", "form-data; "+strings.Repeat("x", 9000)+"=1;"),
		disposition("two names", `form-data; name="a"; name="b"`),
		disposition("two file names", `form-data; name="a"; filename="a"; filename="b"`),
		disposition("two file names, other case", `form-data; name="a"; filename="a"; FileName="b"`),
		disposition("no name", `form-data; filename="a"`),
		disposition("name*", `form-data; name*=utf-8''a`),
		disposition("file name in pieces", `form-data; name="a"; filename*0="a"; filename*1=".php"`),
		disposition("filename* in another charset", `form-data; name="a"; filename*=utf-7''a`),
		disposition("filename* in quotes without a charset", `form-data; name="a"; filename*="a.php"`),
		disposition("filename* with a broken escape", `form-data; name="a"; filename*=utf-8''%zz`),
		disposition("missing quote", `form-data; name="a; filename=x`),
		disposition("text after the quote", `form-data; name="a"b`),
		disposition("escaped quote in a name", `form-data; name="a\"b"`),
		disposition("escaped quote in a file name", `form-data; name="a"; filename="a\".php"`),
		disposition("attachment", `attachment; name="a"`),
		disposition("semicolon at the end", `form-data; name="a";`),
		disposition("spaces in a token", `form-data; name=a b`),
		c("too many parts", strings.Repeat(file("a", "b.txt", "x"), 1001)+endOfForm),
		attack(disposition("file name of a script", `form-data; name="a"; filename="a.php"`)),
		attack(disposition("script in filename* alone", `form-data; name="a"; filename="a.txt"; filename*=utf-8''a.php`)),
		attack(disposition("script behind a backslash", `form-data; name="a"; filename="a.p\hp"`)),
		attack(disposition("script under the decoy", `form-data; name="a"; filename="a.php"; filename*=utf-8''a.txt`)),
		attack(c("attack in a part's name", field("<script>alert(1)</script>", "x")+endOfForm)),
		attack(c("attack in a JSON part", strings.Replace(good, "\r\n\r\nx", "\r\nContent-Type: application/json\r\n\r\n{\"a\":\"<script>alert(1)</script>\"}", 1))),
		attack(c("second of two fields of a name", field("a", "x")+field("a", "<script>alert(1)</script>")+endOfForm)),
		attack(c("transfer encoding", strings.Replace(good, "\r\n\r\nx", "\r\nContent-Transfer-Encoding: base64\r\n\r\neA==", 1))),
		attack(c("_charset_", field("_charset_", "utf-7")+field("a", "x")+endOfForm)),
	})
}

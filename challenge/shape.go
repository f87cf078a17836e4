package challenge

import (
	"net/http"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon"
)

// Programs that cannot solve anything are told by what they ask for, not by
// what they say they are: anybody can say so, but who asks for such a thing
// gets no page.

func reads(r *merlon.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// one returns the value of a field that stands once.
func one(r *merlon.Request, name string) string {
	if v := r.Header[name]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// isGit knows git's smart HTTP (git-scm.com/docs/http-protocol) and LFS
// (github.com/git-lfs/git-lfs, docs/api).
func isGit(r *merlon.Request) bool {
	const lfs = "application/vnd.git-lfs+json"
	for _, service := range [...]string{"git-upload-pack", "git-receive-pack"} {
		switch {
		case reads(r) && strings.HasSuffix(r.Path, "/info/refs") && r.URL.RawQuery == "service="+service,
			r.Method == http.MethodPost && strings.HasSuffix(r.Path, "/"+service) && one(r, "Content-Type") == "application/x-"+service+"-request":
			return true
		}
	}
	_, rest, ok := strings.Cut(r.Path, "/info/lfs/")
	if !ok {
		return false
	}
	media, _, _ := strings.Cut(one(r, "Accept"), ";")
	return media == lfs && (rest == "objects/batch" || rest == "locks" || strings.HasPrefix(rest, "locks/"))
}

// isFeed knows where feeds are. What a client accepts says nothing: any page
// can be asked for that way.
func isFeed(r *merlon.Request) bool {
	if !reads(r) {
		return false
	}
	path := strings.TrimSuffix(r.Path, "/")
	last := path[strings.LastIndexByte(path, '/')+1:]
	switch last {
	case "feed", "rss", "atom", "feed.xml", "rss.xml", "atom.xml", "index.xml", "feed.json":
		return true
	}
	return strings.HasSuffix(last, ".rss") || strings.HasSuffix(last, ".atom")
}

// isWellKnown knows what is asked for by that name everywhere (RFC 8615).
func isWellKnown(r *merlon.Request) bool {
	switch r.Path {
	case "/robots.txt", "/favicon.ico", "/sitemap.xml":
		return reads(r)
	}
	return strings.HasPrefix(r.Path, "/.well-known/")
}

// isPackage knows what package managers read. Only pip accepts pages, too, and
// says at the same time that it would rather have something else. What npm
// asks a registry for has paths like any page, /name, and needs a rule.
func isPackage(r *merlon.Request) bool {
	if !reads(r) || r.Header["Sec-Fetch-Mode"] != nil {
		return false
	}
	accept := one(r, "Accept")
	if strings.Contains(accept, "application/vnd.pypi.simple.v1+") && strings.Contains(r.Path, "/simple/") {
		return true
	}
	if strings.Contains(accept, "text/html") || strings.Contains(accept, "application/xhtml") {
		return false
	}
	if isImage(r.Path) {
		return true // tags are read in pieces, by a query
	}
	return r.URL.RawQuery == "" && (isArchive(r.Path) || isIndex(r.Path) || isCrate(r.Path))
}

// isImage knows registries of container images (the OCI distribution
// specification, "Endpoints").
func isImage(path string) bool {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return false
	}
	parts := strings.Split(rest, "/")
	n := len(parts)
	return rest == "" || n >= 3 && (slices.Contains([]string{"manifests", "blobs", "referrers"}, parts[n-2]) || parts[n-2] == "tags" && parts[n-1] == "list")
}

// isArchive knows packages by the ends of their names.
func isArchive(path string) bool {
	for _, end := range [...]string{
		".deb", ".udeb", ".dsc", ".rpm", ".apk", ".whl", ".gem", ".crate", ".nupkg", ".jar", ".pom", ".jar.sha1", ".pom.sha1",
	} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	return strings.HasSuffix(path, ".tgz") && strings.Contains(path, "/-/") || // npm
		strings.HasSuffix(path, ".tar.gz") && strings.Contains(path, "/packages/") // pip
}

// isIndex knows what says which packages there are.
func isIndex(path string) bool {
	dir, last := path[:strings.LastIndexByte(path, '/')+1], path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case strings.HasSuffix(dir, "/@v/"): // Go: go.dev/ref/mod#goproxy-protocol
		return last == "list" || hasEnd(last, ".info", ".mod", ".zip")
	case last == "@latest":
		return true
	case strings.Contains(dir, "/dists/"): // apt: wiki.debian.org/DebianRepository/Format
		name, _, _ := strings.Cut(last, ".")
		return slices.Contains([]string{"InRelease", "Release", "Packages", "Sources"}, name) ||
			strings.HasPrefix(last, "Contents-") || strings.HasPrefix(last, "Translation-") || strings.Contains(dir, "/by-hash/")
	case strings.HasSuffix(dir, "/repodata/"): // rpm
		return hasEnd(last, ".xml", ".xml.gz", ".xml.zst", ".xml.asc", ".xml.xz")
	}
	return last == "maven-metadata.xml" || last == "APKINDEX.tar.gz" || last == "specs.4.8.gz"
}

// isCrate knows cargo's sparse index, where a name stands below its own first
// letters (doc.rust-lang.org/cargo/reference/registry-index.html).
func isCrate(path string) bool {
	parts := strings.Split(path, "/")
	if len(parts) > 16 || len(parts) < 3 {
		return false
	}
	name, above := parts[len(parts)-1], parts[:len(parts)-1]
	end := func(want ...string) bool {
		return len(above) >= len(want) && slices.Equal(above[len(above)-len(want):], want)
	}
	switch n := len(name); {
	case strings.ToLower(name) != name:
		return false
	case n == 3:
		return end("3", name[:1])
	case n > 3:
		return end(name[:2], name[2:4])
	default:
		return n > 0 && end(string('0'+rune(n)))
	}
}

func hasEnd(s string, ends ...string) bool {
	return slices.ContainsFunc(ends, func(e string) bool { return strings.HasSuffix(s, e) })
}

package demo

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// pretendNet is the network that the shop's fetcher reaches: a few hosts that
// answer from memory. No connection is ever made.
type pretendNet struct{}

// RoundTrip answers as the host would.
func (pretendNet) RoundTrip(r *http.Request) (*http.Response, error) {
	host := r.URL.Hostname()
	var answer func(path string) (kind, body string, ok bool)
	switch {
	case host == "images.example":
		answer = images
	case host == "169.254.169.254":
		answer = metadata
	case host == "10.0.0.5":
		answer = warehouse
	case (host == "localhost" || host == "127.0.0.1") && r.URL.Port() == "6379":
		answer = cache
	default:
		return nil, fmt.Errorf("lookup %s: no such host", host)
	}
	status := http.StatusOK
	kind, body, ok := answer(r.URL.Path)
	if !ok {
		status, kind, body = http.StatusNotFound, "text/plain", "not found\n"
	}
	return &http.Response{
		Status:     strconv.Itoa(status) + " " + http.StatusText(status),
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {kind}},
		Body:          io.NopCloser(bytes.NewReader([]byte(body))),
		ContentLength: int64(len(body)),
		Request:       r,
	}, nil
}

// images is a maker's site with pictures of its things.
func images(path string) (kind, body string, ok bool) {
	name := strings.TrimPrefix(path, "/")
	if name == "pic.svg" {
		name = "obriens-mug.svg"
	}
	b, err := static.ReadFile("static/img/" + name)
	return "image/svg+xml", string(b), err == nil
}

// metadata is a cloud's metadata service. The key is the one that the cloud's
// own manual uses as its example.
func metadata(path string) (kind, body string, ok bool) {
	const role = "shop-server-role"
	switch strings.TrimSuffix(path, "/") {
	case "/latest", "/latest/meta-data":
		return "text/plain", "ami-id\nhostname\niam/\ninstance-id\nlocal-ipv4\n", true
	case "/latest/meta-data/iam/security-credentials":
		return "text/plain", role + "\n", true
	case "/latest/meta-data/iam/security-credentials/" + role:
		return "application/json", `{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"AKIAIOSFODNN7EXAMPLE","SecretAccessKey":"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}` + "\n", true
	}
	return "", "", false
}

// warehouse is a service of the shop's own network that asks nobody to log in,
// since nobody from outside can reach it.
func warehouse(path string) (kind, body string, ok bool) {
	if strings.TrimSuffix(path, "/") != "/admin" {
		return "", "", false
	}
	return "text/plain", "WAREHOUSE CONTROL\nwholesale price of obriens-mug: €4.10\ndoors: [open] [lock]\n", true
}

// cache is a key-value store that takes an HTTP request for a strange command.
func cache(string) (kind, body string, ok bool) {
	return "text/plain", "-ERR wrong number of arguments for 'get' command\nredis_version:7.0.15\n", true
}

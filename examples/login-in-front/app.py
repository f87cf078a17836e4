"""A backend that has no log-in: it is told who is asking."""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Board(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        who = self.headers.get("Merlon-Subject", "nobody")
        roles = self.headers.get("Merlon-Roles", "none")
        text = f"You are {who}.\nYour roles: {roles}.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:3000").rsplit(":", 1)
    ThreadingHTTPServer((host, int(port)), Board).serve_forever()

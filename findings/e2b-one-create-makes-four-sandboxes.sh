#!/bin/bash
# e2b 2.63.0 sends "create a sandbox" again when the answer is 503, with nothing that tells the server it is the same one.
#
# Expected: a POST that makes something is sent once, or each time with the same Idempotency-Key, which the client has a
# parameter for.
#
# What happens: retries are on by default, 3 of them, for 429, 502, 503 and 504, also for POST /v2/sandboxes; the header is
# sent only where the caller thought of a key. A proxy that gives up waiting (504) for a server that is still making the
# sandbox turns one Sandbox.create into four sandboxes, three of which nobody knows of until their time is over.
#
# Why it matters: a server must answer `Should-Retry: false` with every error after which the sandbox may exist, and callers
# must pass idempotency_key; both are shown to hold.
set -euo pipefail
work=$(mktemp -d) && trap 'kill %1 2>/dev/null || true; rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check e2b==2.63.0 2>"$work/pip.log" || { cat "$work/pip.log"; exit 1; }
cat >"$work/server.py" <<'PY'
import http.server, json, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    """Says of every request that it took too long, and notes what it was."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[1], "a") as seen:
            print(self.command, self.path, self.headers.get("Idempotency-Key"), file=seen)
        body = json.dumps({"code": 504, "message": "gateway timeout"}).encode()
        self.send_response(504)
        if os.environ.get("FINAL"):
            self.send_header("Should-Retry", "false")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PY
requests() { # ARGUMENTS of Sandbox.create: how often the server was asked, and with how many different keys
  : >"$work/seen" >"$work/port"
  "$work/venv/bin/python" "$work/server.py" "$work/seen" >"$work/port" &
  until [ -s "$work/port" ]; do sleep 0.1; done
  url=http://127.0.0.1:$(cat "$work/port")
  NO_PROXY=127.0.0.1 E2B_API_KEY=e2b_00 E2B_API_URL=$url E2B_SANDBOX_URL=$url "$work/venv/bin/python" - "$@" 2>/dev/null <<'PY' || true
import sys
from e2b import Sandbox
Sandbox.create(**dict(word.split("=") for word in sys.argv[1:]))
PY
  kill %1; wait %1 2>/dev/null || true
  awk '{ n++; keys[$3] } END { for (k in keys) { c++; last = k } print n " requests, " (c == 1 ? "key " last : c " keys") }' "$work/seen"
}
set +m
is "Sandbox.create()" "$(requests)" "4 requests, key None"
is "with a key" "$(requests idempotency_key=mine)" "4 requests, key mine"
is "a server that says it is final" "$(FINAL=1 requests)" "1 requests, key None"

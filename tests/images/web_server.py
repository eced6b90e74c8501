"""A web server on the loopback that misbehaves on demand: cuts, lies, stalls, serves pages, redirects, changes files."""

import hashlib
import http.server
import ssl
import threading
from dataclasses import dataclass, field


@dataclass
class Resource:
    """One path of the site. Lists are used up, one item a request; numbers count bytes of the body."""

    body: bytes
    etag: str = '"v1"'
    modified: str = ""
    content_type: str = "application/octet-stream"
    statuses: list = field(default_factory=list)
    cuts: list = field(default_factory=list)
    claim: int | None = None
    length: bool = True
    ranges: bool = True
    redirect: str = ""
    becomes: "Resource | None" = None
    headers: dict = field(default_factory=dict)
    gate_at: int = 0
    gate: threading.Event = field(default_factory=threading.Event)


@dataclass
class Seen:
    """One request: its path, its headers in lower case, the body bytes sent in answer."""

    path: str
    headers: dict
    sent: int = 0


class Site:
    """Paths and what lies there, and what was asked for."""

    def __init__(self):
        self.paths = {}
        self.seen = []
        self.lock = threading.Lock()
        self.url = ""

    def put(self, path, body, **how):
        """Serve ``body`` at ``/path``."""
        self.paths[f"/{path}"] = Resource(body if isinstance(body, bytes) else body.encode(), **how)
        return self.paths[f"/{path}"]

    def sums(self, name, **files):
        """Serve a checksum file in the manner of sha256sum(1)."""
        lines = [f"{hashlib.sha256(body).hexdigest()} *{file}\n" for file, body in files.items()]
        return self.put(name, "".join(lines), content_type="text/plain", etag="")

    def asked(self, path):
        """The requests for ``/path``."""
        return [seen for seen in self.seen if seen.path == f"/{path}"]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one site."""

    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_):
        """Nothing."""

    def do_GET(self):
        """Answer as the resource says."""
        path = "/" + self.path.split("://", 1)[1].split("/", 1)[1] if "://" in self.path else self.path
        seen = Seen(path, {name.lower(): value for name, value in self.headers.items()})
        with self.site.lock:
            self.site.seen.append(seen)
            resource = self.site.paths.get(path)
            if resource and resource.becomes and len(self.site.asked(path[1:])) > 1:
                resource = self.site.paths[path] = resource.becomes
        self.close_connection = True
        try:
            self.answer(resource, seen)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def answer(self, resource, seen):
        """Status, headers, and as much of the body as is to come."""
        if resource is None:
            return self.error(404)
        if resource.statuses and (status := resource.statuses.pop(0)) != 200:
            return self.error(status)
        if resource.redirect:
            self.send_response(302)
            self.send_header("Location", resource.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self.body(resource, seen)

    def error(self, status):
        """A page, as servers send with errors."""
        page = b"<html>error</html>"
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def body(self, resource, seen):
        """The whole file or the part asked for."""
        start, total = self.start(resource, seen), len(resource.body)
        if start is not None and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Type", resource.content_type)
        if resource.etag:
            self.send_header("ETag", resource.etag)
        if resource.modified:
            self.send_header("Last-Modified", resource.modified)
        for name, value in resource.headers.items():
            self.send_header(name, value)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        data = resource.body[start or 0 :]
        if resource.length:
            self.send_header("Content-Length", str(resource.claim if resource.claim is not None else len(data)))
        self.end_headers()
        self.pour(resource, seen, data)

    def start(self, resource, seen):
        """The first byte asked for, None for the whole file."""
        wanted = seen.headers.get("range")
        condition = seen.headers.get("if-range", "")
        if not wanted or not resource.ranges or condition not in ("", resource.etag, resource.modified):
            return None
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def pour(self, resource, seen, data):
        """Send the body up to the next cut; a gate holds it until it is opened."""
        if resource.cuts:
            cut = resource.cuts.pop(0)
            data = data if cut is None else data[:cut]
        if resource.gate_at and not resource.gate.is_set():
            self.wfile.write(data[: resource.gate_at])
            self.wfile.flush()
            seen.sent += resource.gate_at
            resource.gate.wait(60)
            data = data[resource.gate_at :]
        for at in range(0, len(data), 65536):
            self.wfile.write(data[at : at + 65536])
            seen.sent += len(data[at : at + 65536])


def serve(certificate=None):
    """A running server and its site; ``certificate`` is a PEM file with key for https."""
    site = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server, site

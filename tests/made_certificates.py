"""An authority of the tests' own, and what it certifies, as QEMU wants it in a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

FILES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")


def made_certificates(folder: Path) -> Path:
    """A new folder with localhost's certificate, its key, and the authority's."""
    folder.mkdir(mode=0o700)
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-batch"]
    ours = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    lines = [
        [*new, "-x509", "-days", "30", "-subj", "/CN=tests", "-keyout", "ca-key.pem", "-out", "ca-cert.pem", *ours],
        [*new, "-subj", "/CN=localhost", "-keyout", "server-key.pem", "-out", "asked.pem"],
        [
            *("openssl", "x509", "-req", "-in", "asked.pem", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-days", "30"),
            *("-CAcreateserial", "-extfile", "names", "-out", "server-cert.pem"),
        ],
    ]
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    for line in lines:
        subprocess.run(line, cwd=folder, check=True, capture_output=True)
    return folder

"""A viewer of a few lines: RFB 3.8 (RFC 6143), TLS by VeNCrypt (rfbproto, "VeNCrypt"), passwords by DES."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
from pathlib import Path
from typing import Any

_PASSWORD, _VENCRYPT, _X509_VNC = 2, 19, 261


def _answer(password: str, challenge: bytes) -> bytes:
    """DES of the challenge under the password, each of whose bytes is taken backwards (RFC 6143, 7.2.2)."""
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode().ljust(8, b"\0")[:8]).hex()
    line = ["openssl", "enc", "-des-ede3", "-nopad", "-K", key * 3]  # three times the same key is DES
    return subprocess.run(line, input=challenge, capture_output=True, check=True).stdout


def _exactly(line: Any, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = line.recv(count - len(data))
        if not piece:
            raise ConnectionError("the server hung up")
        data += piece
    return data


def looked(port: int, password: str, trusted: Path | None) -> tuple[int, int]:
    """Width and height of the screen served on that port. Raises PermissionError for a password that is not taken.

    ``trusted`` is the authority of the server's certificate, None for a server without TLS.
    """
    line: Any = socket.create_connection(("localhost", port), timeout=60)
    with line:
        assert _exactly(line, 12) == b"RFB 003.008\n"
        line.sendall(b"RFB 003.008\n")
        offered = list(_exactly(line, _exactly(line, 1)[0]))
        if trusted is None:
            assert offered == [_PASSWORD]
            line.sendall(bytes([_PASSWORD]))
        else:
            assert offered == [_VENCRYPT], "without TLS nothing is offered"
            line.sendall(bytes([_VENCRYPT]))
            assert _exactly(line, 2) == b"\0\2"
            line.sendall(b"\0\2")
            assert _exactly(line, 1) == b"\0"
            count = _exactly(line, 1)[0]
            assert struct.unpack(f">{count}I", _exactly(line, 4 * count)) == (_X509_VNC,)
            line.sendall(struct.pack(">I", _X509_VNC))
            assert _exactly(line, 1) == b"\1"
            line = ssl.create_default_context(cafile=str(trusted)).wrap_socket(line, server_hostname="localhost")
        line.sendall(_answer(password, _exactly(line, 16)))
        if struct.unpack(">I", _exactly(line, 4))[0]:
            said = _exactly(line, struct.unpack(">I", _exactly(line, 4))[0])
            raise PermissionError(said.decode())
        line.sendall(b"\1")
        width, height = struct.unpack(">HH", _exactly(line, 4))
        return width, height

"""Frames of any content sent and counted by a guest: a Python carried into it, which the tiny guest does not have."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sysconfig
from pathlib import Path

from labs import Lab

_FILES = ("abc.py", "codecs.py", "io.py", "encodings/__init__.py", "encodings/aliases.py", "encodings/utf_8.py")
_SYSTEM = "/usr/bin/python3"
MARK = b"tinamou forging test"
_LISTEN = """
import _socket, time
s = _socket.socket(17, 3, 0x0300); s.bind(("eth0", 3)); s.settimeout(0.2)
end, found = time.monotonic() + %f, {}
print("ready", flush=True)
while time.monotonic() < end:
    try: data = s.recv(2000)
    except (TimeoutError, OSError): continue
    at = data.find(%r)
    if at >= 0: found[bytes(data[at + %d:at + %d])] = True
print(sorted(key.decode() for key in found), flush=True)
"""
_SEND = "import _socket\ns = _socket.socket(17, 3); s.bind(('eth0', 3))\nfor f in %r: s.send(bytes.fromhex(f))"


def carry_python(lab: Lab, name: str, folder: Path) -> None:
    """The distribution's own Python, with the few modules it cannot start without."""
    home, version = folder / "py", _version()
    if not home.is_dir():
        library = home / f"lib/python{version}"
        (library / "encodings").mkdir(parents=True)
        (library / "lib-dynload").mkdir()
        for file in _FILES:
            shutil.copy(f"/usr/lib/python{version}/{file}", library / file)
        shutil.copy(f"/usr/bin/python{version}", home / "python")
        linked = subprocess.run(["ldd", str(home / "python")], capture_output=True, text=True, check=True).stdout
        for line in linked.splitlines():
            path = next((word for word in line.split() if word.startswith("/") and "ld-linux" not in word), "")
            if path:
                shutil.copy(path, home / "lib" / Path(path).name)
    lab.tinamou("cp", str(home), f"{name}:/tmp/py")


def _version() -> str:
    said = subprocess.run(
        [_SYSTEM, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    )
    return said.stdout.strip() or sysconfig.get_python_version()


_PYTHON = "env -i LD_LIBRARY_PATH=/tmp/py/lib PYTHONHOME=/tmp/py /tmp/py/python -S"


def listen(lab: Lab, name: str, seconds: float) -> None:
    """Begin to note the names of marked frames that arrive in a guest."""
    script = _LISTEN % (seconds, MARK, len(MARK), len(MARK) + 8)
    lab.run("sh", "-c", f"cat >{lab.state}/listen.py", input=script)
    lab.tinamou("cp", str(lab.state / "listen.py"), f"{name}:/tmp/listen.py")
    lab.guest(
        name, f"ip link set eth0 promisc on; (setsid {_PYTHON} /tmp/listen.py >/tmp/heard) >/dev/null 2>&1 </dev/null &"
    )
    lab.wait(name, "grep -q ready /tmp/heard")


def heard(lab: Lab, name: str) -> set[str]:
    """The names that arrived, once the time is over."""
    return set(eval(lab.wait(name, "tail -n 1 /tmp/heard | grep '\\['"), {}))


def send(lab: Lab, name: str, frames: list[bytes]) -> None:
    """Send raw frames from a guest's eth0."""
    script = _SEND % [frame.hex() for frame in frames]
    lab.run("sh", "-c", f"cat >{lab.state}/send.py", input=script)
    lab.tinamou("cp", str(lab.state / "send.py"), f"{name}:/tmp/send.py")
    lab.guest(name, f"{_PYTHON} /tmp/send.py")


def marked(name: str) -> bytes:
    return MARK + name.ljust(8).encode()


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(target: str, source: str, kind: int, body: bytes) -> bytes:
    return mac(target) + mac(source) + struct.pack("!H", kind) + body


def ipv4(source: str, target: str, body: bytes, protocol: int = 17) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target)
    return head[:10] + struct.pack("!H", _sum(head)) + head[12:] + body


def udp(source: int, target: int, body: bytes) -> bytes:
    return struct.pack("!HHHH", source, target, 8 + len(body), 0) + body


def ipv6(source: str, target: str, body: bytes, header: int = 17) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    return struct.pack("!IHBB", 6 << 28, len(body), header, 255) + ends + body


def arp(sender_mac: str, sender: str, target_mac: str, target: str, operation: int = 2) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + mac(sender_mac) + socket.inet_aton(sender) + mac(target_mac) + socket.inet_aton(target)


def advertisement(source: str, target: str, claimed: str, hardware: str) -> bytes:
    """A neighbour advertisement (RFC 4861, 4.4)."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + socket.inet_pton(socket.AF_INET6, claimed) + b"\2\1" + mac(hardware)
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    total = _sum(ends + struct.pack("!IHBB", len(body), 0, 0, 58) + body)
    return ipv6(source, target, body[:2] + struct.pack("!H", total) + body[4:], 58)


def _sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

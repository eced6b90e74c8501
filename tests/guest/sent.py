"""What a guest could send, made here: archives member by member, hostile ones, and the lines around them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from tinamou.guest.carry import wire
from tinamou.guest.carry.feed import Feed

FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def archived(*members: tuple[str, bytes, object], mode: int = 0o6755, **more: object) -> bytes:
    """A tar archive of (name, type, content or target) entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, kind, extra in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = mode
            for field, value in more.items():
                setattr(info, field, value)
            if isinstance(extra, bytes):
                info.size = len(extra)
                made.addfile(info, io.BytesIO(extra))
            else:
                info.linkname = str(extra)
                made.addfile(info)
    return buffer.getvalue()


def framed(archive: bytes, size: int = 8 << 20) -> bytes:
    """The archive as the guest's script sends it."""
    chunks = [archive[start : start + size] for start in range(0, len(archive), size)]
    lines = [b"chunk %d %s\n%s" % (len(one), hashlib.sha256(one).hexdigest().encode(), one) for one in chunks]
    return b"folder\n" + b"".join(lines) + b"chunk 0 -\n"


def unpack(archive: bytes, target: Path, *, limit: int = 1 << 30, files: int = 10_000) -> wire.Sent:
    """Take the archive from a guest as `tinamou cp` does."""
    return take(framed(archive) + b"end 0 no\n", target, limit=limit, files=files)


def take(stream: bytes, target: Path, *, limit: int = 1 << 30, files: int = 10_000) -> wire.Sent:
    """Take a folder from whatever a guest says."""
    return wire.read_folder(Feed(io.BytesIO(stream).read, limit), target, files)


def pax(name, records, kind=FILE, body=b""):
    """A member with a pax header of these bytes."""
    head = tarfile.TarInfo("header")
    head.type, head.size = tarfile.XHDTYPE, len(records)
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(body)
    pad = lambda data: data + bytes(-len(data) % 512)  # noqa: E731
    return head.tobuf(tarfile.USTAR_FORMAT) + pad(records) + info.tobuf(tarfile.USTAR_FORMAT) + pad(body) + bytes(1024)


def record(key, value):
    text = b" %s=%s\n" % (key, value)
    size = len(text) + 1
    while len(b"%d" % size) + len(text) != size:
        size += 1
    return b"%d%s" % (size, text)


def sparse(size, real):
    """GNU's old sparse file: claims much, holds little."""
    info = tarfile.TarInfo("sparse")
    info.type, info.size = b"S", size
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % size
    header[483:495] = b"%011o\0" % real
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(size + -size % 512) + bytes(1024)


DEEP = "/".join(["d"] * 100_000)
HOSTILE = {
    "a name that leads up": archived(("../victim/keys", FILE, b"x")),
    "a name that leads up within": archived(("a/../../victim/keys", FILE, b"x")),
    "an absolute name": archived(("{victim}/keys", FILE, b"x")),
    "a member below a link": archived(("a", LINK, "{victim}"), ("a/keys", FILE, b"x")),
    "a link below a link": archived(("p", FILE, b"x"), ("a", LINK, "{victim}"), ("a/keys", LINK, "{victim}/../to/p")),
    "a folder below a link": archived(("a", LINK, "{victim}"), ("a/new", FOLDER, "")),
    "a file that becomes a link": archived(("a", FILE, b"x"), ("a", LINK, "{victim}"), ("a/keys", FILE, b"x")),
    "a folder that becomes a link": archived(("a", FOLDER, ""), ("a", LINK, "{victim}")),
    "a link that becomes a folder": archived(("a", LINK, "{victim}"), ("a", FOLDER, "")),
    "a link that becomes a file": archived(("a", LINK, "{victim}/keys"), ("a", FILE, b"x")),
    "the folder itself as a link": archived((".", LINK, "{victim}")),
    "the folder itself as a file": archived((".", FILE, b"x")),
    "a hard link outside": archived(("a", HARD, "../victim/keys")),
    "a hard link to an absolute name": archived(("a", HARD, "{victim}/keys")),
    "a hard link by way of a link": archived(("a", LINK, "{victim}"), ("b", HARD, "a/keys")),
    "a hard link to a link": archived(("a", LINK, "{victim}/keys"), ("b", HARD, "a")),
    "a hard link to itself": archived(("a", HARD, "a")),
    "hard links in a ring": archived(("a", HARD, "b"), ("b", HARD, "a")),
    "a hard link to nothing": archived(("a", HARD, "missing")),
    "a hard link to a folder": archived(("a", FOLDER, ""), ("b", HARD, "a")),
    "a file below a file": archived(("a", FILE, b"x"), ("a/b", FILE, b"x")),
    "100,000 folders deep": archived((DEEP, FOLDER, "")),
    "a name of 256 bytes": archived(("n" * 256, FILE, b"")),
    "a name with a NUL": pax("a", record(b"path", b"a\0b")),
    "a link to nothing": pax("a", record(b"linkpath", b""), LINK),
    "a sparse file of 1 TiB": sparse(512, 1 << 40),
    "a sparse file by pax": pax("a", record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.realsize", b"%d" % (1 << 40))),
    "a size that never arrives": pax("a", record(b"size", b"%d" % (1 << 40))),
    "a size that is none": pax("a", record(b"size", b"-1")),
    "a size without end": pax("a", record(b"size", b"9" * 5000)),
    "a time that is none": pax("a", record(b"mtime", b"nan")),
    "a time too late": pax("a", record(b"mtime", b"9" * 12)),
    "a time without end": pax("a", record(b"mtime", b"1" * 5000)),
    "a pax header of another length": pax("a", b"99 path=x\n"),
    "a pax header that is none": pax("a", b"7" * 100_000),
    "a name of 1 MiB": pax("a", record(b"path", b"n" * (1 << 20))),
    "a damaged header": archived(("a", FILE, b"x"))[:100] + b"\xff" + archived(("a", FILE, b"x"))[101:],
    "no archive": b"\x7fELF" + bytes(2000),
    "nothing": b"",
    "half an archive": archived(("a", FILE, b"x" * 5000))[:4096],
    "an unknown kind": archived(("a", b"Z", "")),
    "text behind it": archived(("a", FILE, b"x")) + b"x" * 512,
}


def rewritten(archive: bytes, victim: Path) -> bytes:
    """The archive with the victim's path in its names: made anew, for their headers have sums."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for info in old:
            info.pax_headers = {}
            info.name = info.name.replace("{victim}", str(victim))
            info.linkname = info.linkname.replace("{victim}", str(victim))
            new.addfile(info, old.extractfile(info) if info.isreg() else None)
    return buffer.getvalue()

"""What an attacker does with the process it has: the verbs of attacks, and the list of them."""

from __future__ import annotations

import dataclasses
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from attacks.puppet import Copy, Refused

CWD = -100
"""AT_FDCWD: a path is meant from the working folder on."""


class Walled(Exception):
    """A call went through, and reached nothing of the host's: the reason."""


@dataclasses.dataclass
class House:
    """What is around the process that attacks; paths and process numbers are the host's."""

    scratch: Path
    """A folder everybody may enter and nobody but its owner write to."""
    secret: Path
    """A file its owner alone may read."""
    readable: Path
    """A file of the owner's that everybody may read."""
    victim: int
    """A process of the owner's, with a secret among its words and in its environment."""
    sacrifice: Callable[[], int]
    """Makes a process of the owner's that is to be killed; its number."""
    own: Path
    """The folder of the attacker's own machine."""
    own_uid: int | None
    helpers: dict[str, int]
    """The processes of its own machine beside it, by name."""
    neighbours: dict[str, tuple[Path, int]]
    """Other machines: of the same state directory, of another one; folder and QEMU."""
    image: Path
    """A file of the image cache."""
    sockets: Path
    """A socket everybody may connect to, by path."""
    abstract: str
    """The name of an abstract socket that a process of the owner's listens on."""
    tcp: socket.socket
    udp: socket.socket
    qemu: int = 0
    """The QEMU of its own machine."""
    process: int = 0
    """The attacker's own number on the host."""
    memory: int = 0
    """Bytes of memory its guest has."""


class Attacker:
    """The verbs of an attack. Each raises Refused, Killed, Stuck or Walled where it gets nowhere."""

    def __init__(self, copy: Copy, house: House) -> None:
        self.copy, self.house = copy, house
        self.call = copy.call

    def opens(self, path: object, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
        """An open file; opening a pipe waits for nobody."""
        return self.call("openat", CWD, str(path), flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)

    def reads(self, path: object, wanted: bytes = b"") -> bytes:
        """What a file begins with, 64 KiB at most; it must hold what is wanted."""
        said = bytearray(1 << 16)
        length = self.call("read", self.opens(path), said, len(said))
        if wanted not in said[:length] or not length:
            raise Walled("a file of its own, without what was looked for")
        return bytes(said[:length])

    def lists(self, path: object, wanted: str = "") -> bytes:
        """The names in a folder, as the kernel gives them."""
        folder, said = self.opens(path, os.O_RDONLY | os.O_DIRECTORY), bytearray()
        while (length := self.call("getdents64", folder, part := bytearray(1 << 16), len(part))) > 0:
            said += part[:length]
        if wanted.encode() not in said:
            raise Walled("a folder of its own, without what was looked for")
        return bytes(said)

    def makes(self, path: Path) -> None:
        """A file on the host, which is removed at once."""
        self.opens(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        if not os.path.lexists(path):
            raise Walled("a folder of its own, which the host does not see")
        path.unlink()

    def connects(self, family: int, address: bytes, kind: int = socket.SOCK_STREAM) -> int:
        """A connected socket."""
        made = self.call("socket", family, kind, 0)
        self.call("connect", made, address, len(address))
        return made

    def gets_to(self, *call: int | bytes | str | bytearray, past: Sequence[int] = ()) -> None:
        """A call of the kernel that works, or fails for a reason that comes after the check of rights."""
        try:
            self.call(*call)  # type: ignore[arg-type]
        except Refused as error:
            if error.number not in past:
                raise

    def vector(self, address: int, length: int) -> bytes:
        """An iovec."""
        return struct.pack("<QQ", address, length)


Try = Callable[[Attacker], object]
Tries = dict[str, Try]


@dataclasses.dataclass(frozen=True)
class Attack:
    """One row of the list: what is tried, in one or several ways."""

    name: str
    what: str
    tries: Callable[[House], Tries]
    control: bool
    """Whether a process behind no wall must get through with it; not where it is about what the process itself holds."""


ATTACKS: list[Attack] = []


def attack(what: str, *, control: bool = True) -> Callable[[Callable[[House], Tries]], Callable[[House], Tries]]:
    """Put an attack into the list, by the name of the function, which returns its ways for a house."""

    def added(tries: Callable[[House], Tries]) -> Callable[[House], Tries]:
        ATTACKS.append(Attack(tries.__name__.replace("_", "-"), what, tries, control))
        return tries

    return added


def unix(name: str | Path) -> bytes:
    """The address of a Unix socket: a path, or an abstract name that begins with a zero byte."""
    return struct.pack("<H", socket.AF_UNIX) + str(name).encode() + (b"\0" if str(name)[0] != "\0" else b"")


def inet(port: int, host: str = "127.0.0.1") -> bytes:
    """The address of an IPv4 socket."""
    return struct.pack("<H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)

"""Logs of what was measured while a guest started: the TCG's, of a TPM and of TDX (CCEL); replayed, and said in words.

Source: TCG PC Client Platform Firmware Profile 1.06 (TCG_PCR_EVENT, TCG_PCR_EVENT2, event types), UEFI 2.10 section 38
(confidential computing: register i of the log is RTMR i-1, and 0 is MRTD).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

from tinamou.attest import signatures
from tinamou.attest.binary import MalformedError, Reader
from tinamou.late import dataclass

__all__ = ["ALGORITHMS", "Event", "ima_events", "parse", "parse_ima", "replay"]

ALGORITHMS = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
"""Hash functions by the numbers the TCG gave them."""
_MOST = 16 << 20
_EVENTS = 100_000
_NO_ACTION, _IPL, _VARIABLE_BOOT, _AUTHORITY = 3, 0xD, 0x80000002, 0x800000E0
_IMA = 1 << 32
"""Of the kernel's own events, which have no type: none the TCG could give."""
_TYPES = {
    0: "PREBOOT_CERT",
    1: "POST_CODE",
    3: "NO_ACTION",
    4: "SEPARATOR",
    5: "ACTION",
    6: "EVENT_TAG",
    7: "S_CRTM_CONTENTS",
    8: "S_CRTM_VERSION",
    9: "CPU_MICROCODE",
    10: "PLATFORM_CONFIG_FLAGS",
    11: "TABLE_OF_DEVICES",
    12: "COMPACT_HASH",
    13: "IPL",
    14: "IPL_PARTITION_DATA",
    0x80000001: "EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EFI_VARIABLE_BOOT",
    0x80000003: "EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EFI_GPT_EVENT",
    0x80000007: "EFI_ACTION",
    0x80000008: "EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EFI_HANDOFF_TABLES",
    0x8000000A: "EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EFI_HANDOFF_TABLES2",
    0x8000000C: "EFI_VARIABLE_BOOT2",
    0x80000010: "EFI_HCRTM_EVENT",
    0x800000E0: "EFI_VARIABLE_AUTHORITY",
    1 << 32: "IMA",
}
_OF_ITSELF = {4, 5, 8, 0x80000001, 0x80000006, 0x80000007, 0x8000000C, 0x800000E0}
"""Types whose digest is that of what the log says."""
_SPOKEN = (b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ")
"""What GRUB writes before the words it measured."""
_VARIABLES = {0x80000001, 0x80000002, 0x8000000C, 0x800000E0}


@dataclass(frozen=True)
class Event:
    """One measurement: into which register, of which type, its digests by hash function, and what the log says of it."""

    register: int
    type: int
    digests: dict[str, bytes]
    data: bytes

    @property
    def name(self) -> str:
        """The type's name."""
        return _TYPES.get(self.type, f"{self.type:#x}")

    @property
    def violated(self) -> bool:
        """Whether the kernel could not measure a file, which was being written to: nothing covers what the log says then."""
        return self.type == _IMA and self.digests.get("sha256") == b"\xff" * 32

    @property
    def covered(self) -> bool:
        """Whether the digest is that of what the log says, so that nobody can have written something else there."""
        known = {name: digest for name, digest in self.digests.items() if name in hashlib.algorithms_available}
        return bool(known) and any(
            all(hashlib.new(name, said).digest() == digest for name, digest in known.items()) for said in self._measured()
        )

    def _measured(self) -> list[bytes]:
        """What may have been hashed, for this type, of all the log says."""
        if self.type in _OF_ITSELF:
            return [self.data]
        if self.type == _IMA:
            return [self.data]
        if self.type == _IPL:
            words = self.data.rstrip(b"\0")
            before = next((one for one in _SPOKEN if words.startswith(one)), b"")
            return [self.data, words, words.removeprefix(before)]
        if self.type == _VARIABLE_BOOT and len(self.data) > 32:
            letters = int.from_bytes(self.data[16:24], "little")
            return [self.data, self.data[32 + 2 * letters :]] if letters < 1024 else [self.data]
        return []

    @property
    def text(self) -> str:
        """What the log says of it, in words; what its digest does not cover is marked."""
        said = self._variable() if self.type in _VARIABLES else _printable(self.data)
        if self.type == _IMA:
            said = _file_of(self.data)
        return said if self.covered or not said else f"{said} (as the log says)"

    def _variable(self) -> str:
        try:
            name, vendor, size, value = self.variable()
        except MalformedError:
            return ""
        said = f"{name} of {vendor}, {size} bytes"
        if name not in signatures.NAMES or not value:
            return said
        inside = signatures.entry(value) if self.type == _AUTHORITY else signatures.listed(value)
        return f"{said}: {inside}" if inside else said

    def variable(self) -> tuple[str, uuid.UUID, int, bytes]:
        """Name, vendor, length and value of the firmware's variable that was measured. Raises MalformedError."""
        reader = Reader(self.data, "variable")
        vendor = uuid.UUID(bytes_le=reader.take(16, "vendor"))
        letters, size = reader.number(8, "letters"), reader.number(8, "size")
        name = reader.take(min(letters * 2, reader.left), "name").decode("utf-16-le", "replace")
        return name.translate(_CONTROL), vendor, size, reader.rest()


_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "�")


def _file_of(data: bytes) -> str:
    """The file an event of the kernel's is about: the second field of its template."""
    try:
        reader = Reader(data, "event")
        reader.take(reader.number(4, "length"), "hash")
        name = reader.take(reader.number(4, "length"), "name")
        return name.rstrip(b"\0").decode("utf-8", "replace").translate(_CONTROL)
    except MalformedError:
        return ""


def _printable(data: bytes) -> str:
    text = data[:400].rstrip(b"\0")
    if not text or any(byte < 32 or byte > 126 for byte in text):
        return f"{len(data)} bytes" if data else ""
    return text.decode("ascii")


def parse(data: bytes) -> list[Event]:
    """The events of a log, the first of which says which hash functions it has. Raises MalformedError."""
    if len(data) > _MOST:
        raise MalformedError(f"a log of {len(data)} bytes; {_MOST} are looked at")
    reader = Reader(data, "the log")
    register, kind = reader.number(4, "register"), reader.number(4, "type")
    first = reader.take(20, "SHA-1 digest")
    head = reader.take(reader.number(4, "length"), "event")
    if kind != _NO_ACTION or head[:16] != b"Spec ID Event03\0" or any(first):
        raise MalformedError("it does not begin with the event that says which hash functions it has (Spec ID Event03)")
    sizes = _functions(head)
    events = [Event(register, kind, {}, head)]
    while reader.left >= 4 and len(events) < _EVENTS:
        register = reader.number(4, "register")
        if register == 0xFFFFFFFF:  # what firmware fills the room behind a log with
            break
        event = _event(reader, register, sizes)
        if event is None:
            break
        events.append(event)
    return events


def parse_ima(data: bytes) -> list[Event]:
    """The events of the kernel's own log, which goes on after the firmware's: IMA's binary_runtime_measurements.

    Its digests are computed from what it says, as the kernel does for the bank by SHA-256. Raises MalformedError.
    """
    return [event for event, _ in ima_events(data)]


def ima_events(data: bytes) -> list[tuple[Event, int]]:
    """The same, each with the place in the log where it ends. Raises MalformedError."""
    if len(data) > _MOST:
        raise MalformedError(f"a log of {len(data)} bytes; {_MOST} are looked at")
    reader, events = Reader(data, "the kernel's log"), list[tuple[Event, int]]()
    while reader.left and len(events) < _EVENTS:
        register = reader.number(4, "register")
        digest = reader.take(20, "digest")
        reader.take(reader.number(4, "length"), "template")
        said = reader.take(reader.number(4, "length"), "event")
        violation = not any(digest)
        found = b"\xff" * 32 if violation else hashlib.sha256(said).digest()
        if register > 23:
            raise MalformedError(f"the kernel's log speaks of register {register}")
        events.append((Event(register, _IMA, {"sha256": found}, said), len(data) - reader.left))
    return events


def _functions(head: bytes) -> dict[int, int]:
    reader = Reader(head[24:], "the log's first event")
    count = reader.number(4, "number of hash functions")
    if not 1 <= count <= 16:
        raise MalformedError(f"the log has {count} hash functions")
    return {reader.number(2, "function"): reader.number(2, "length") for _ in range(count)}


def _event(reader: Reader, register: int, sizes: dict[int, int]) -> Event | None:
    """The next event, None at the zeros behind the last one."""
    if register == 0 and reader.left < 8:
        return None
    kind, count = reader.number(4, "type"), reader.number(4, "number of digests")
    if register == kind == count == 0:
        return None
    if count > len(sizes):
        raise MalformedError(f"an event has {count} digests, and the log {len(sizes)} hash functions")
    digests = {}
    for _ in range(count):
        function = reader.number(2, "hash function")
        if function not in sizes:
            raise MalformedError(f"hash function {function:#x} is not one of the log's")
        digests[ALGORITHMS.get(function, f"{function:#x}")] = reader.take(sizes[function], "digest")
    return Event(register, kind, digests, reader.take(reader.number(4, "length"), "event"))


def replay(events: Sequence[Event], function: str) -> dict[int, bytes]:
    """What the registers hold after all of it: each begins with zeros, and is hashed with each digest after the other."""
    if function not in ALGORITHMS.values():
        raise MalformedError(f"the log's registers are by {function}, which is not known here")
    registers: dict[int, bytes] = {}
    for event in events:
        if event.type == _NO_ACTION:
            if event.data[:16] == b"StartupLocality\0" and len(event.data) > 16:
                if event.register or 0 in registers:
                    raise MalformedError("the log begins a register anew where no firmware does (StartupLocality)")
                size = hashlib.new(function).digest_size
                registers[event.register] = bytes(size - 1) + event.data[16:17]
            continue
        digest = event.digests.get(function)
        if digest is None:
            raise MalformedError(f"an event of the log has no digest by {function}")
        before = registers.get(event.register, bytes(len(digest)))
        registers[event.register] = hashlib.new(function, before + digest).digest()
    return registers

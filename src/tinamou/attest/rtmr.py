"""RTMR0 to RTMR2 of a TDX machine, event by event: what follows from firmware and plan is computed, the rest is named.

Source: edk2 OvmfPkg/IntelTdx/TdxHelperLib (hand-off block, configuration volume), OvmfPkg/Tcg/TdTcg2Dxe (variables of Secure
Boot, separators, actions), OvmfPkg/AcpiPlatformDxe (ACPI), Linux drivers/firmware/efi/libstub (tagged events); QEMU
hw/i386/tdvf-hob.c and hw/i386/pc_q35.c (where memory is); Intel TDX Virtual Firmware Design Guide, chapter 8.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence

from tinamou.attest import tdvf
from tinamou.attest.binary import MalformedError
from tinamou.attest.eventlog import Event
from tinamou.attest.linux_image import as_handed_over, authenticode
from tinamou.late import dataclass

__all__ = ["TRUSTED", "Compared", "Expected", "compared", "kernel_events", "of_firmware"]

_CODE, _VARIABLES, _HAND_OFF, _TEMPORARY = range(4)
_GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c").bytes_le
_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f").bytes_le
_SECURE = (("SecureBoot", _GLOBAL), ("PK", _GLOBAL), ("KEK", _GLOBAL), ("db", _SECURITY), ("dbx", _SECURITY))
_VARIABLE_START = b"\xaa\x55"
_GIB2, _GIB275, _GIB4 = 0x80000000, 0xB0000000, 0x100000000
_NO_ACTION, _TABLES, _DRIVER_CONFIG = 3, 0xA, 0x80000001


@dataclass(frozen=True)
class Expected:
    """An event that must be there: in which register (rtmr0, …), and its SHA-384, which may be any of ``digests``."""

    register: str
    name: str
    digests: tuple[bytes, ...]


TRUSTED: Mapping[str, tuple[str, tuple[int, ...], str]] = {
    "tables": (
        "rtmr0",
        (_TABLES,),
        "ACPI tables and settings, made by the host's QEMU for the devices it has; trusted instead: the firmware in MRTD, "
        "which gives the guest no others than it measured, and the guest's kernel, which believes what they say of devices",
    ),
    "boot_variables": (
        "rtmr0",
        (0x80000002, 0x8000000C),
        "boot entries, which the firmware makes of its own files and the devices the host offers; trusted instead: the "
        "firmware in MRTD, which measures in RTMR1 whatever it starts by them",
    ),
    "keys": (
        "rtmr0",
        (_DRIVER_CONFIG,),
        "variables of Secure Boot, which firmware reads from its store; trusted instead: the firmware in MRTD and the "
        "store, whose event is computed",
    ),
}
"""Events that are not computed, by the name under which a policy accepts them: register, types, what is trusted instead."""


def _digest(data: bytes) -> tuple[bytes]:
    return (hashlib.sha384(data).digest(),)


def of_firmware(firmware: bytes, memory: int) -> list[Expected]:
    """The events of RTMR0 that follow from the image and the machine's memory (bytes). Raises MalformedError."""
    sections = tdvf.sections(firmware)
    store = next((one for one in sections if one.type == _VARIABLES), None)
    found = [Expected("rtmr0", "the hand-off block: where memory is", _digest(hand_off(sections, memory)))]
    if store is not None:
        data = firmware[store.at : store.at + store.length]
        found.append(Expected("rtmr0", "the firmware's store of variables", _digest(data)))
    if store is None or _VARIABLE_START not in firmware[store.at + 0x64 : store.at + store.length]:
        for name, vendor in _SECURE:
            off = (b"", b"\0") if name == "SecureBoot" else (b"",)  # firmware that could check has it, and says no
            digests = tuple(_digest(_variable(name, vendor, value))[0] for value in off)
            found.append(Expected("rtmr0", f"{name}, which is empty", digests))
    return [*found, Expected("rtmr0", "the separator behind Secure Boot", _digest(bytes(4)))]


def _variable(name: str, vendor: bytes, value: bytes) -> bytes:
    sizes = len(name).to_bytes(8, "little") + len(value).to_bytes(8, "little")
    return vendor + sizes + name.encode("utf-16-le") + value


def below_4g(memory: int) -> int:
    """How much of a q35 machine's memory is below 4 GiB."""
    return min(memory, _GIB2 if memory >= _GIB275 else _GIB275)


def hand_off(sections: Sequence[tdvf.Section], memory: int) -> bytes:
    """The list of memory QEMU hands to the firmware, without its end: what the guest must accept, and what was added."""
    below = below_4g(memory)
    ranges = [(0, below, True), *([(_GIB4, memory - below, True)] if memory > below else ())]
    for one in sections:
        if one.type in (_HAND_OFF, _TEMPORARY):
            ranges = [piece for each in ranges for piece in _without(each, one.address, one.size)]
            ranges.append((one.address, one.size, False))
    base = next((one.address for one in sections if one.type == _HAND_OFF), None)
    if base is None:
        raise MalformedError("its TDX metadata has no room for the hand-off block")
    body = b"".join(_resource(start, size, new=new) for start, size, new in sorted(ranges))
    end = base + 56 + len(body) + 8
    return _header(1, 56) + (9).to_bytes(4, "little") + bytes(36) + end.to_bytes(8, "little") + body


def _without(whole: tuple[int, int, bool], start: int, size: int) -> Iterable[tuple[int, int, bool]]:
    """What is left of memory to be accepted when a piece is taken out."""
    at, length, new = whole
    if not new or at + length <= start or start + size <= at:
        return [whole]
    pieces = ((at, start - at, True), (start + size, at + length - start - size, True))
    return [one for one in pieces if one[1] > 0]


def _header(kind: int, length: int) -> bytes:
    return kind.to_bytes(2, "little") + length.to_bytes(2, "little") + bytes(4)


def _resource(start: int, size: int, *, new: bool) -> bytes:
    """A range of memory: 7 unaccepted, 0 system memory; present, initialized and tested."""
    numbers = (7 if new else 0).to_bytes(4, "little") + (7).to_bytes(4, "little")
    return _header(3, 48) + bytes(16) + numbers + start.to_bytes(8, "little") + size.to_bytes(8, "little")


def kernel_events(kernel: bytes, initrd: bytes, append: str, memory: int) -> list[Expected]:
    """The events of RTMR1 and RTMR2 of a kernel that is handed over: as a file, or with the head QEMU has changed.

    Raises MalformedError for a kernel that is no EFI application.
    """
    started = tuple(authenticode(one) for one in (kernel, as_handed_over(kernel, len(initrd), below_4g(memory))))
    options = f"{append} initrd=initrd" if initrd else append
    said = (
        *(b"Calling EFI Application from Boot Option", b"Exit Boot Services Invocation"),
        b"Exit Boot Services Returned with Success",
    )
    return [
        Expected("rtmr1", "the kernel", started),
        Expected("rtmr1", "the separator before it", _digest(bytes(4))),
        *(Expected("rtmr1", one.decode(), _digest(one)) for one in said),
        Expected("rtmr2", "the kernel's arguments", _digest(options.encode("utf-16-le") + bytes(2))),
        *([Expected("rtmr2", "the initrd", _digest(initrd))] if initrd else ()),
    ]


@dataclass(frozen=True)
class Compared:
    """A log beside what is expected: what is ``wrong``, what is ``trusted`` without being computed, what was ``found``."""

    wrong: tuple[str, ...]
    trusted: tuple[str, ...]
    found: tuple[str, ...]


def compared(events: Sequence[Event], expected: Sequence[Expected]) -> Compared:
    """The events of a log, whose registers were quoted, each held to what is expected of the registers that are spoken of.

    An event that is not expected must be of a kind in `TRUSTED`; one that is expected must be there.
    """
    left, found, wrong, trusted = list(expected), list[str](), list[str](), dict[str, None]()
    spoken = {one.register for one in expected}
    for event in events:
        register, digest = f"rtmr{event.register - 1}", event.digests.get("sha384", b"")
        if event.type == _NO_ACTION or register not in spoken:
            continue
        match = next((one for one in left if one.register == register and digest in one.digests), None)
        if match is not None:
            left.remove(match)
            found.append(f"{register}: {match.name}")
            continue
        kind = next((name for name, (where, types, _) in TRUSTED.items() if where == register and event.type in types), "")
        if kind:
            trusted[kind] = None
        else:
            wrong.append(f"new in {register}: {event.name} {event.text}".rstrip())
    wrong += [f"not in {one.register}: {one.name}, as it is computed" for one in left]
    return Compared(tuple(wrong[:16]), tuple(trusted), tuple(found))

"""Guests of a few instructions, one per architecture: they count, answer on the console and switch the machine off."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tinamou.facts.qemu import QemuFacts
from tinamou.late import dataclass
from tinamou.system.closing import Closing

__all__ = ["ANSWER", "GuestRun", "known", "run_guest"]

ANSWER = "tinamou"


@dataclass(frozen=True)
class _Guest:
    code: bytes
    machines: tuple[str, ...]
    arguments: tuple[str, ...]
    success: int = 0


def _bios(code: bytes) -> bytes:
    """A 64 KiB BIOS: the reset vector 16 bytes before the end jumps to the code 4 KiB before it."""
    image = bytearray(0x10000)
    image[0xF000 : 0xF000 + len(code)] = code
    image[0xFFF0:0xFFF3] = b"\xe9" + ((0xF000 - 0xFFF3) & 0xFFFF).to_bytes(2, "little")
    return bytes(image)


_X86 = bytes.fromhex(
    "faea06f000f031c08ed8"  # cli; ljmp $0xf000,$next; ds = 0
    "66c70600100320000066c70600200330000066c706003083000000"  # page tables at 0x1000: the first 2 MiB, one page
    "2e660f0116d8f0"  # lgdt
    "66b8200600000f22e066b8001000000f22d8"  # cr4 = PAE | OSFXSR | OSXMMEXCPT; cr3 = 0x1000
    "66b9800000c00f32660d000100000f30"  # EFER.LME
    "66b8110000800f22c066ea5ff00f000800"  # cr0 = PG | ET | PE; far jump to 64-bit code
    "b8100000008ed88ec08ed0"  # ds = es = ss = 16
    "b8ff000000f3480fb8c083f8087535"  # popcnt of 0xff is 8
    "66480f6ec0660fefc066480f7ec04885c07522"  # pxor of a register with itself is 0
    "b9a0860100ffc975fc"  # count to 100,000
    "488d3519000000bae9000000b907000000f36e"  # the answer to the debug console, port 0xe9
    "b010e6f4eb04b011e6f4f4ebfd"  # 16 to isa-debug-exit (QEMU ends with 33), or 17 after a wrong result; hlt
    "74696e616d6f750f1f4000"  # the answer
    "0000000000000000ffff0000009baf00ffff00000093cf001700c0f00f00"  # GDT: null, code, data; its descriptor
)
_AARCH64 = bytes.fromhex(
    "0220a1d223608052433000b9"  # enable the PL011 at 0x09000000
    "04d490522400a07284040071e1ffff54"  # count to 100,000
    "410100102314403863000034430000b9fdffff17"  # the answer to the PL011
    "000180520080b072020000d47f2003d5ffffff17"  # PSCI SYSTEM_OFF by hvc; wfi
    "74696e616d6f7500"
)
_RISCV64 = bytes.fromhex(
    "b7020010378e01001b0e0e6a130efeffe31e0efe"  # t0 = UART at 0x10000000; count to 100,000
    "1703000013034303834303006388030023807200130313006ff01fff"  # the answer to the UART
    "b7021000375300001b03535523a06200"  # 0x5555 to the test device at 0x100000: power off
    "730050106ff0dfff74696e616d6f7500"
)

_PC = ("-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios", "{image}")
_SERIAL = ("-serial", "stdio", "-kernel", "{image}")
_GUESTS = {
    "x86_64": _Guest(_bios(_X86), ("q35", "pc", "microvm"), _PC, success=33),
    "aarch64": _Guest(_AARCH64, ("virt",), _SERIAL),
    "riscv64": _Guest(_RISCV64, ("virt",), (*_SERIAL, "-bios", "none")),
}


@dataclass(frozen=True)
class GuestRun:
    """One run of a micro guest: whether it answered and switched off, the time, QEMU's end and its last words."""

    answered: bool
    milliseconds: float
    status: int = 0
    stderr: str = ""
    late: bool = False


def known(qemu: QemuFacts) -> bool:
    """Whether there is a micro guest for this binary's architecture and machine types."""
    return qemu.arch in _GUESTS and _machine(qemu) != ""


def _machine(qemu: QemuFacts) -> str:
    return next((name for name in _GUESTS[qemu.arch].machines if qemu.has(f"machine:{name}")), "")


@contextmanager
def _image(code: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The code as a file QEMU can open: in memory on Linux (nothing is left behind), a temporary file elsewhere."""
    if hasattr(os, "memfd_create"):
        with Closing(os.memfd_create("tinamou-microguest")) as number:
            os.write(number, code)
            yield f"/proc/self/fd/{number}", (number,)
    else:
        from tempfile import NamedTemporaryFile

        with NamedTemporaryFile(prefix="tinamou-microguest-") as file:
            file.write(code)
            file.flush()
            yield file.name, ()


def run_guest(qemu: QemuFacts, accel: str, cpu: str, seconds: float) -> GuestRun:
    """Run the micro guest under ``accel`` with CPU model ``cpu`` (empty: QEMU's default) for ``seconds`` at most."""
    from tinamou.system.exec import CommandError, TimeoutExpired, run

    guest = _GUESTS[qemu.arch]
    begin = time.perf_counter()
    status, stdout, stderr, late = 0, "", "", False
    with _image(guest.code) as (path, descriptors):
        argv = [qemu.binary, "-M", _machine(qemu), "-accel", accel, *(("-cpu", cpu) if cpu else ()), "-m", "8"]
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += [word.replace("{image}", path) for word in guest.arguments]
        try:
            stdout = run(argv, timeout=seconds, pass_fds=descriptors)
        except CommandError as ended:
            status, stdout, stderr = ended.status, ended.stdout, ended.stderr
        except TimeoutExpired as over:
            late, stderr = True, _decoded(over.stderr)
        except OSError as refused:
            status, stderr = 127, str(refused)
    answered = stdout == ANSWER and status == guest.success and not late
    return GuestRun(answered, _since(begin), status, _words(stderr), late)


def _since(begin: float) -> float:
    return round((time.perf_counter() - begin) * 1000, 1)


def _decoded(output: object) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else ""


def _words(stderr: str) -> str:
    """The first lines of what QEMU said, without the name it puts before each."""
    lines = [re.sub(r"^\S*qemu-[\w-]+: ", "", line) for line in stderr.strip().splitlines()]
    return "\n".join(lines[:3])

"""What the kernel does with a filter: classic BPF over struct seccomp_data, as far as filters of ours use it (bpf(4))."""

from __future__ import annotations

import struct

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def verdict(program: bytes, number: int, arch: int, *arguments: int) -> int:
    """The action for one call; every jump must stay inside, and every way must end with an answer."""
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", number - (1 << 32) if number >> 31 else number, arch, 0, *words)
    code = list(struct.iter_unpack("<HBBI", program))
    at, accumulator = 0, 0
    while True:
        kind, true, false, constant = code[at]
        at += 1
        match kind:
            case 0x20:
                accumulator = int.from_bytes(data[constant : constant + 4], "little")
            case 0x54:
                accumulator &= constant
            case 0x05:
                at += constant
            case 0x15:
                at += true if accumulator == constant else false
            case 0x35:
                at += true if accumulator >= constant else false
            case 0x06:
                return constant
            case _:
                raise AssertionError(f"an instruction of a kind no filter of ours has: {kind:#x}")

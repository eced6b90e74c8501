"""A program of its own: run a few instructions in KVM through raw ioctls and print what happened as one line of JSON.

It is started as a child process (``tinamou.system.kvm``), because a kernel whose KVM is broken may not come back from an
ioctl, and imports nothing but the standard library. Source: Documentation/virt/kvm/api.rst, linux/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import signal
import struct
import sys
import time

_GET_API_VERSION, _CREATE_VM, _GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
_CREATE_VCPU, _SET_USER_MEMORY_REGION, _SET_TSS_ADDR = 0xAE41, 0x4020AE46, 0xAE47
_RUN, _GET_REGS, _SET_REGS, _GET_SREGS, _SET_SREGS = 0xAE80, 0x8090AE81, 0x4090AE82, 0x8138AE83, 0x4138AE84
_EXIT_IO, _EXIT_HLT, _EXIT_INTERNAL_ERROR = 2, 5, 17

_MEMORY = 1 << 21
_CODE_AT = 0x4000
_PORT = 0xE9

CODE = bytes.fromhex(
    "b061e6e9"  # mov $'a',%al; out %al,$0xe9: code runs at all
    "b8ff000000f3480fb8c083f8087529b062e6e9"  # popcnt of 0xff is 8, or jump to the end; out 'b'
    "66480f6ec0660fefc066480f7ec04885c07512b063e6e9"  # movq, pxor of a register with itself is 0; out 'c'
    "b940420f00ffc975fcb064e6e9f4"  # a loop of a million; out 'd'; hlt
    "b021e6e9f4"  # a wrong result: out '!'; hlt
)
"""64-bit code. Each step answers through the port; a KVM that interprets every instruction does not know POPCNT and PXOR."""

_CODES = {"x86_64": CODE}
"""The processors there is code for; elsewhere the trial ends with the virtual machine made."""


class _LateError(Exception):
    """The guest was still running when the time was up."""


def main(device: str, seconds: float) -> dict[str, object]:
    """Try ``device``; the guest code may take ``seconds``. The result names the stage reached and what stopped it."""
    report: dict[str, object] = {"stage": "open", "errno": 0, "steps": "", "late": False}
    begin = time.perf_counter()
    try:
        _try(device, seconds, report)
    except OSError as refused:
        report["errno"] = refused.errno or 0
    except _LateError:
        report["late"] = True
    report["milliseconds"] = round((time.perf_counter() - begin) * 1000, 2)
    return report


def _try(device: str, seconds: float, report: dict[str, object]) -> None:
    kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    report["stage"] = "version"
    report["version"] = fcntl.ioctl(kvm, _GET_API_VERSION, 0)
    report["stage"] = "vm"
    vm = fcntl.ioctl(kvm, _CREATE_VM, 0)
    if os.uname().machine not in _CODES:
        report["stage"] = "created"
        return
    report["stage"] = "vcpu"
    memory = _memory(vm)
    vcpu = fcntl.ioctl(vm, _CREATE_VCPU, 0)
    run = mmap.mmap(vcpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE, 0))
    _long_mode(vcpu)
    report["stage"] = "run"
    _run(vcpu, run, seconds, report)
    del memory


def _memory(vm: int) -> mmap.mmap:
    memory = mmap.mmap(-1, _MEMORY)
    for at, entry in ((0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)):
        memory[at : at + 8] = struct.pack("<Q", entry)
    memory[_CODE_AT : _CODE_AT + len(CODE)] = CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(vm, _SET_TSS_ADDR, 0x7FFBD000)  # any three pages below 4 GiB outside the memory
    fcntl.ioctl(vm, _SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, _MEMORY, address))
    return memory


def _segment(kind: int, selector: int, *, long: int) -> bytes:
    return struct.pack("<QIHBBBBBBBBBB", 0, 0xFFFFFFFF, selector, kind, 1, 0, 1 - long, 1, long, 1, 0, 0, 0)


def _long_mode(vcpu: int) -> None:
    sregs = bytearray(0x138)
    fcntl.ioctl(vcpu, _GET_SREGS, sregs)
    sregs[0:0x18] = _segment(11, 8, long=1)
    for number in range(1, 6):
        sregs[number * 0x18 : (number + 1) * 0x18] = _segment(3, 16, long=0)
    struct.pack_into("<QQQQQQ", sregs, 0xE0, 0x80000011, 0, 0x1000, 0x620, 0, 0x500)  # cr0 cr2 cr3 cr4 cr8 efer
    fcntl.ioctl(vcpu, _SET_SREGS, bytes(sregs))
    registers = bytearray(0x90)
    struct.pack_into("<QQ", registers, 0x80, _CODE_AT, 2)  # rip rflags
    fcntl.ioctl(vcpu, _SET_REGS, bytes(registers))


def _run(vcpu: int, run: mmap.mmap, seconds: float, report: dict[str, object]) -> None:
    def late(_signal: int, _frame: object) -> None:
        raise _LateError

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    steps = ""
    while True:
        fcntl.ioctl(vcpu, _RUN, 0)
        (reason,) = struct.unpack_from("<I", run, 8)
        report["exit"] = reason
        if reason != _EXIT_IO:
            break
        direction, size, port, _count, offset = struct.unpack_from("<BBHIQ", run, 0x20)
        if (direction, size, port) != (1, 1, _PORT):
            break
        steps += chr(run[offset])
        report["steps"] = steps
    signal.setitimer(signal.ITIMER_REAL, 0)
    if reason == _EXIT_HLT:
        report["stage"] = "done"
    elif reason == _EXIT_INTERNAL_ERROR:
        (report["suberror"],) = struct.unpack_from("<I", run, 0x20)
        report["instruction"] = _instruction(vcpu)


def _instruction(vcpu: int) -> str:
    registers = bytearray(0x90)
    fcntl.ioctl(vcpu, _GET_REGS, registers)
    (rip,) = struct.unpack_from("<Q", registers, 0x80)
    return CODE[rip - _CODE_AT :][:5].hex(" ") if 0 <= rip - _CODE_AT < len(CODE) else f"at {rip:#x}"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], float(sys.argv[2]))))

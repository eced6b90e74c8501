"""What every check of the watch is shown, and what it must find: good, bad and unknown."""

from __future__ import annotations

from dataclasses import replace

from tinamou.doctor.finding import Severity
from tinamou.monitor.observation import NO_DRIVER, DiskObservation, GuestMemory, Held, HostObservation, Observation, Place
from tinamou.units import Size

GOOD, INFO, WARNING, BAD, UNKNOWN = Severity.GOOD, Severity.INFO, Severity.WARNING, Severity.BAD, Severity.UNKNOWN
MIB, GIB, DAY = 1 << 20, 1 << 30, 86400.0

TORN = {"severity": "error", "file": "disk0.qcow2", "what": "torn", "fix": ""}
KILLED = (
    "web:/root# [   47.922834] Out of memory: Killed process 134 (tail) total-vm:442176kB, anon-rss:439980kB, "
    "file-rss:4kB, shmem-rss:1344kB, UID:0 pgtables:904kB oom_score_adj:0\n"
)
IN_GROUP = KILLED.replace("Out of memory", "Memory cgroup out of memory").replace("tail", "my (odd name")
PANIC = "[   12.000000] Kernel panic - not syncing: sysrq triggered crash\n"


def size(mib):
    return Size(mib * MIB)


def memory(available=400, holds=512, why="", **more):
    known = None if available is None else size(available)
    return GuestMemory(size(512), size(holds), known, age=1.0, why=why, **more)


PLACE = Place(7, "/vm", Size(50 * GIB), Size(100 * GIB))
DISK = DiskObservation("disk0", files=("/vm/disk0.qcow2",), may_grow=Size(10 * GIB), place=PLACE)
SEEN = Observation(
    "web", state="running", memory=memory(), held=Held(size(300), Size(0)), disks=(DISK,), console="boots\n", uptime=100.0
)
OFF = Observation("web")
HOST = HostObservation(Size(24 * GIB), Size(20 * GIB), 0.0)
SHORT = replace(HOST, available=Size(1 * GIB))


def seen(**change):
    return replace(SEEN, **change)


def disk(**change):
    return seen(disks=(replace(DISK, **change),))


def room(free, grow, status="ok"):
    return disk(place=replace(PLACE, free=Size(free * GIB)), may_grow=Size(grow * GIB), status=status)


def checked(age, *findings, deep=True):
    return seen(checked={"at": 0, "deep": deep, "findings": list(findings)}, check_age=age)


def host(**change):
    return replace(HOST, **change)


MACHINE_CASES = {
    "qemu_killed": [
        (GOOD, "lives", SEEN, HOST),
        (BAD, "limits.memory = 200M", replace(OFF, ended="it needed more than limits.memory = 200M allows"), HOST),
        (BAD, "was out of memory", replace(OFF, ended="the host was out of memory: Killed process 1"), HOST),
        (BAD, "crashed", replace(OFF, ended="QEMU crashed: segfault"), HOST),
        (UNKNOWN, "does not run", OFF, HOST),
    ],
    "qemu_silent": [
        (GOOD, "running", SEEN, HOST),
        (BAD, "did not greet", seen(state="", silent="QEMU did not greet"), HOST),
        (UNKNOWN, "does not run", OFF, HOST),
    ],
    "guest_panic": [
        (GOOD, "did not", SEEN, HOST),
        (GOOD, "did not", seen(state="paused"), HOST),
        (BAD, "sysrq triggered crash", seen(state="guest-panicked", console=PANIC), HOST),
        (BAD, "printed nothing", seen(state="guest-panicked", console=""), HOST),
        (BAD, "sysrq triggered crash", seen(console=PANIC), HOST),
        (UNKNOWN, "no greeting", seen(state="", silent="no greeting"), HOST),
    ],
    "disk_stopped": [
        (GOOD, "no request", SEEN, HOST),
        (BAD, "no space left for disk0 (/vm/disk0.qcow2)", replace(disk(status="nospace"), state="io-error"), HOST),
        (BAD, "stands still: requests of disk0", replace(disk(status="failed"), state="io-error"), HOST),
        (BAD, "the guest was told: write to disk0", seen(errors=("write to disk0: Input/output error",)), HOST),
        (UNKNOWN, "does not run", OFF, HOST),
    ],
    "guest_oom": [
        (GOOD, "no process", SEEN, HOST),
        (BAD, "ended tail (process 134, 430M)", seen(console=KILLED), HOST),
        (BAD, "and 1 before it", seen(console=KILLED * 2), HOST),
        (BAD, "a control group in the guest", seen(console=IN_GROUP), HOST),
        (INFO, "ended tail", seen(console=KILLED, uptime=10 * DAY), HOST),
        (UNKNOWN, "said nothing", seen(console=""), HOST),
    ],
    "guest_silent": [
        (GOOD, "answers", seen(answers=True), HOST),
        (BAD, "does not answer any more", seen(answers=False), HOST),
        (UNKNOWN, "it boots", seen(answers=False, memory=memory(None, why=NO_DRIVER)), HOST),
        (UNKNOWN, "paused", seen(state="paused", unasked="the guest does not run (paused)"), HOST),
    ],
    "guest_memory": [
        (GOOD, "400M of 512M", SEEN, HOST),
        (WARNING, "running short", seen(memory=memory(40)), HOST),
        (BAD, "nearly exhausted", seen(memory=memory(10)), HOST),
        (BAD, "its balloon holds 256M more", seen(memory=memory(8, holds=256), floor=size(256)), HOST),
        (UNKNOWN, "no balloon", seen(memory=memory(None, why="the machine has no balloon device")), HOST),
        (UNKNOWN, "QEMU does not answer", seen(memory=None), HOST),
    ],
    "disk_space": [
        (GOOD, "50G of 100G free below /vm, disk0 may take 10G more", SEEN, HOST),
        (GOOD, "no disks", seen(disks=()), HOST),
        (GOOD, "1.0G of 100G", room(1, 0), HOST),
        (INFO, "more was promised", room(50, 60), HOST),
        (WARNING, "will be full", room(8, 60), HOST),
        (BAD, "nearly full", room(1, 60), HOST),
        (BAD, "nearly full", room(4, 60, "nospace"), HOST),
        (UNKNOWN, "cannot be asked", disk(place=None), HOST),
    ],
    "balloon_floor": [
        (GOOD, "no memory.floor", SEEN, SHORT),
        (GOOD, "its floor is 192M", seen(floor=size(192)), SHORT),
        (GOOD, "its floor is 192M", seen(floor=size(192), memory=memory(90, holds=192)), HOST),
        (WARNING, "can give no more", seen(floor=size(192), memory=memory(90, holds=192)), SHORT),
        (UNKNOWN, "not known", seen(floor=size(192)), HostObservation()),
    ],
    "disk_chain": [
        (GOOD, "at most 1 files", SEEN, HOST),
        (WARNING, "disk0 rests on 40 files", disk(files=tuple(f"/vm/{number}" for number in range(40))), HOST),
        (UNKNOWN, "does not run", OFF, HOST),
    ],
    "disk_check": [
        (INFO, "never", SEEN, HOST),
        (GOOD, "3 h ago", checked(3 * 3600.0), HOST),
        (GOOD, "a quick check", checked(3 * 3600.0, deep=False), HOST),
        (WARNING, "90 days ago", checked(90 * DAY), HOST),
        (BAD, "disk0.qcow2: torn", checked(3600.0, TORN), HOST),
        (UNKNOWN, "cannot be read", seen(checked={"findings": None}), HOST),
    ],
}  # fmt: skip
"""Check → (severity, words of its evidence, the machine, the host)."""

HOLD = {"web": size(300), "db": size(9000)}
HOST_CASES = {
    "host_memory": [
        (GOOD, "20G of 24G", HOST),
        (WARNING, "db holds 8.8G (and may take 1.0G more), web holds 300M, everything else 14G",
         host(available=Size(1 * GIB), held=HOLD, promised={"db": Size(GIB)})),
        (BAD, "100M of 24G available, 1.2G should stay", host(available=size(100))),
        (WARNING, "40 % of the time", host(pressure=40.0)),
        (UNKNOWN, "meminfo", HostObservation()),
    ],
    "budget": [
        (GOOD, "none was given", HOST),
        (GOOD, "need 300M, the budget is 700M", host(budget=size(700), needed={"web": size(300)})),
        (WARNING, "web 500M, db 300M", host(budget=size(700), needed={"db": size(300), "web": size(500)})),
        (UNKNOWN, "no machine", host(budget=size(700))),
    ],
}  # fmt: skip

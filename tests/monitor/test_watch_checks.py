"""Every check of the watch tells good from bad from unknown; what the consoles and logs say is read as it is."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from pathlib import Path

import pytest
from watch_cases import BAD, GOOD, HOST, HOST_CASES, INFO, KILLED, MACHINE_CASES, PANIC, SEEN, UNKNOWN, WARNING, seen

import tinamou.monitor.checks
from tinamou.monitor.console import kills, panic
from tinamou.monitor.deaths import cause_of
from tinamou.monitor.examine import HOST_CHECKS, MACHINE_CHECKS, examine_host, examine_machine, wrong
from tinamou.monitor.host import look_at_host
from tinamou.monitor.look import _console, printed
from tinamou.monitor.processes import held, spent, uptime
from tinamou.monitor.service_unit import service_unit
from tinamou.prepare.journal import Journal
from tinamou.state.record import Record
from tinamou.system.rooted import Rooted


def judge(name, *shown):
    module = import_module(f"tinamou.monitor.checks.{name}")
    assert module.TITLE
    return module.check(*shown)


@pytest.mark.parametrize("name", [*MACHINE_CASES, *HOST_CASES])
def test_check(name):
    found = []
    for severity, words, *shown in {**MACHINE_CASES, **HOST_CASES}[name]:
        finding = judge(name, *shown)
        assert (finding.severity, words in finding.evidence) == (severity, True), finding
        assert finding.fix or severity in (GOOD, UNKNOWN, INFO)
        found.append(severity)
    assert {GOOD, UNKNOWN} <= set(found)
    assert {WARNING, BAD} & set(found)


def test_checks_and_files_agree():
    files = {path.stem for path in Path(tinamou.monitor.checks.__path__[0]).glob("*.py")} - {"__init__"}
    assert files == {*MACHINE_CHECKS, *HOST_CHECKS} == {*MACHINE_CASES, *HOST_CASES}


def test_what_a_panicked_guest_says_is_waited_for(tmp_path):
    """QEMU's monitor tells it before the log has it."""
    record = Record("web", str(tmp_path), {})

    async def told(state):
        asked = asyncio.create_task(_console(record, state))
        await asyncio.sleep(0)
        record.file("serial.log").write_text("[    1.0] Kernel panic - not syncing: why\n")
        return await asked

    assert "why" in asyncio.run(told("guest-panicked"))
    record.file("serial.log").unlink()
    assert asyncio.run(told("running")) == ""


def test_all_findings_of_a_look():
    found = [*examine_machine(seen(console=KILLED), HOST), *examine_host(HOST)]
    assert [one.check for one in found] == [*MACHINE_CHECKS, *HOST_CHECKS]
    assert [one.check for one in found if wrong(one)] == ["guest_oom"]
    assert not any(map(wrong, examine_machine(SEEN, HOST)))


def test_the_killed_process_is_named_whatever_stands_around_it():
    text = (
        f"{KILLED}[   50.1] Out of memory: Killed process 7 (a (b) total-vm:1kB, anon-rss:8kB\n"
        "Memory cgroup out of memory: Killed process 8 ((c)) total-vm:1kB\n"
        "[   51.0] oom_reaper: reaped process 8 (c)\nKilled process 9 (d)\n"
    )
    assert [(one.process, one.number, one.held, one.at, one.group) for one in kills(text)] == [
        ("tail", 134, 439980 << 10, 47.922834, False),
        ("a (b", 7, 8 << 10, 50.1, False),
        ("(c)", 8, 0, None, True),
    ]


def test_the_console_counts_from_the_start_and_from_the_last_boot(tmp_path):
    log = tmp_path / "serial.log"
    assert printed(log, 0) == ""
    before = f"[   99.0] old\n{KILLED}".encode()
    log.write_bytes(before + b"[    0.5] boots\n" + PANIC.encode() + b"[    0.4] boots again\nhello\n")
    assert kills(printed(log, 0)) == kills(printed(log, len(before))) == []
    assert "hello" in printed(log, len(before))
    assert panic(printed(log, 0)) == ""
    assert panic(PANIC) == "Kernel panic - not syncing: sysrq triggered crash"
    assert "hello" in printed(log, 10**9)


LINE = "Out of memory: Killed process 4711 (qemu-system-x86) total-vm:9kB, anon-rss:8kB"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (f"[  600.000001] {LINE}\n", "the host was out of memory: Out of memory: Killed process 4711 (qemu-system-x86)"),
        (f"[  600.000001] {LINE.replace('Out', 'Memory cgroup out')}\n", "the control group QEMU was in was out of memory"),
        (f"[    5.000001] {LINE}\n", ""),
        (f"[  600.000001] {LINE.replace('4711', '14711')}\n", ""),
        (
            "[  600.1] qemu-system-x86[4711]: segfault at 8 ip 0 sp 0 error 4 in qemu\n",
            "QEMU crashed: qemu-system-x86[4711]: segf",
        ),
        ("[  600.1] traps: qemu-system-x86[4711] general protection fault ip:0 sp:0 error:0\n", "QEMU crashed: traps"),
        ("[  600.1] qemu-system-x86[14711]: segfault at 8 ip 0 sp 0 error 4 in qemu\n", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_kernel_log_tells_why_qemu_is_gone(tmp_path, log, words):
    gone = Record("web", str(tmp_path), {}, pid=4711, started=60 * os.sysconf("SC_CLK_TCK"))
    cause = cause_of(gone, Rooted(str(tmp_path)), lambda: log)
    assert words in cause
    assert bool(words) == bool(cause)
    assert cause_of(Record("web", str(tmp_path), {}), Rooted(str(tmp_path)), lambda: log) == ""


@pytest.mark.parametrize(("file", "count"), [("memory.events", 1), ("memory.oom_control", 2), ("memory.events", 0)])
def test_its_control_group_tells_why_qemu_is_gone(tmp_path, file, count):
    folder = tmp_path / "sys/fs/cgroup/tinamou/web"
    folder.mkdir(parents=True)
    (folder / file).write_text(f"oom 3\noom_kill {count}\n")
    Journal(tmp_path).take("cgroup", name="web", places=["/sys/fs/cgroup/tinamou/web"])
    gone = Record("web", str(tmp_path), {"limits": {"memory": "200M"}}, pid=4711, started=1)
    cause = cause_of(gone, Rooted(str(tmp_path)), lambda: None)
    assert ("limits.memory = 200M" in cause) == bool(count)


def test_the_host_and_who_holds_it(tmp_path):
    (tmp_path / "proc/pressure").mkdir(parents=True)
    assert look_at_host(Rooted(str(tmp_path)), {}).short is None
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n")
    (tmp_path / "proc/pressure/memory").write_text("some avg10=90.00 avg60=0\nfull avg10=12.50 avg60=0.00 total=1\n")
    host = look_at_host(Rooted(str(tmp_path)), {"web": SEEN})
    assert (host.total, host.available, host.pressure) == (8 << 30, 4 << 30, 12.5)
    assert host.short
    assert host.held == {"web": 300 << 20}
    assert host.promised == {"web": 212 << 20}


def test_what_a_process_takes_of_the_host():
    files, me = Rooted(), os.getpid()
    assert 0 < held(files, me, share=True).pss <= held(files, me, share=True).rss
    assert held(files, me, share=False).pss is None
    assert spent(files, me).seconds > 0
    assert uptime(files, me) > 0
    assert held(files, 1 << 30, share=True) is spent(files, 1 << 30) is None


def test_the_unit_says_what_it_runs():
    text = service_unit(["/usr/bin/tinamou", "watch", "--budget", "8G", "50%"], {"TINAMOU_STATE": "/var/a b"})
    assert "ExecStart=/usr/bin/tinamou watch --budget 8G 50%%\n" in text
    assert "Environment='TINAMOU_STATE=/var/a b'\n" in text
    assert "[Install]\nWantedBy=" in text

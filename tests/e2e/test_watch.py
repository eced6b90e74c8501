"""The watch over real guests: what they use, what goes wrong with them and is said, memory that moves between them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from typed import TINAMOU, call, eventually

from tinamou.prepare.journal import Journal

pytestmark = pytest.mark.vm

MIB = 1 << 20


@contextlib.contextmanager
def machine(name, *more):
    done = call("run", "-d", "--name", name, *more)
    assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
    try:
        yield name
    finally:
        call("rm", "-f", name)


@contextlib.contextmanager
def watching(folder, *more):
    """A watch that runs; what it has told so far, one object a line."""
    log = folder / "watch.jsonl"
    with log.open("wb") as out, (folder / "watch.err").open("wb") as err:
        process = subprocess.Popen([*TINAMOU, "watch", "--json", *more], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    try:
        yield process, lambda: [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    finally:
        process.terminate()
        assert process.wait(120) == 0, (folder / "watch.err").read_text()


def stats(name):
    done = call("stats", name, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[0]


def look(name):
    """The exit status of a look at one machine, and its findings by check."""
    done = call("watch", "--once", "--json", name)
    found = json.loads(done.stdout)
    assert found["status"] == done.returncode
    return done.returncode, {one["check"]: one for one in found["findings"] if one["machine"] == name}


def told(lines, check, event="begins"):
    return [one for one in lines() if one.get("check") == check and one["event"] == event]


def guest(name, script):
    return call("exec", name, "--", "sh", "-c", script)


HOLD = "mkdir -p /mnt/t && mount -t tmpfs -o size=90% t /mnt/t && dd if=/dev/zero of=/mnt/t/f bs=1M"


def fill(name, mib):
    """Let the guest hold that much memory."""
    done = guest(name, f"{HOLD} count={mib}")
    assert done.returncode == 0, done.stderr


def available(name):
    """MiB, as ``free`` in the guest says."""
    return int(guest(name, "free -m | awk '/^Mem/ {print $7}'").stdout)


def test_stats_of_a_guest_that_takes_memory_move_the_right_numbers(tmp_path):
    with machine("web", "--disk", "size=64M"):
        before = stats("web")
        assert before["missing"] == []
        assert before["memory"]["size"] == before["memory"]["balloon"] == 512 * MIB
        fill("web", 200)
        guest("web", "dd if=/dev/zero of=/dev/vda bs=1M count=8 conv=fsync")
        after = stats("web")
        grown = {key: after["memory"]["guest"][key] - before["memory"]["guest"][key] for key in ("used", "available")}
        assert 190 * MIB < grown["used"] < 260 * MIB
        assert -260 * MIB < grown["available"] < -190 * MIB
        assert after["memory"]["host"]["rss"] - before["memory"]["host"]["rss"] > 150 * MIB
        assert 0 < after["memory"]["host"]["pss"] <= after["memory"]["host"]["rss"]
        (disk,) = after["disks"]
        assert disk["written_bytes"] == before["disks"][0]["written_bytes"] + 8 * MIB
        assert disk["allocated"] >= 8 * MIB > before["disks"][0]["allocated"]
        assert disk["may_grow"] <= 56 * MIB
        assert after["network"][0]["seen"] == "guest"
        assert call("stats").stdout.splitlines()[1].startswith("web ")


def test_why_there_are_no_numbers_is_said(tmp_path):
    with machine("bare", "--set", "devices.balloon=false", "--net", "none"):
        done = call("stats")
        assert "bare: no memory in the guest: the machine has no balloon device" in done.stderr
        assert call("pause", "bare").returncode == 0
        status, findings = look("bare")
        assert (status, findings["guest_silent"]["severity"]) == (0, "unknown")
        assert "paused" in findings["guest_silent"]["evidence"]
    assert call("stats", "bare").returncode == 118


def test_top_ends_with_ctrl_c_and_shows_rates(tmp_path):
    with machine("web"), (tmp_path / "top").open("w+") as out:
        top = subprocess.Popen(
            [*TINAMOU, "top", "--json", "--interval", "1"], stdin=subprocess.DEVNULL, stdout=out, start_new_session=True
        )
        eventually(lambda: (tmp_path / "top").read_text().count("\n") >= 3, "the third look")
        top.send_signal(signal.SIGINT)
        assert top.wait(120) == 0
        first, second = [json.loads(line) for line in (tmp_path / "top").read_text().splitlines()[:2]]
        assert first["machines"][0]["per_second"] is None
        assert second["machines"][0]["per_second"]["read"] == 0
        assert second["machines"][0]["cpu"]["percent"] is not None


@pytest.mark.slow
def test_the_idle_guest_gives_and_gets_its_memory_back_when_it_is_loaded(tmp_path):
    floor = ("--set", "memory.floor=192M")
    with machine("idle", *floor), machine("other", *floor):
        full = available("idle")
        with watching(tmp_path, "--balance", "--budget", "700M", "--interval", "2") as (_, lines):
            balloons = lambda: sum(stats(name)["memory"]["balloon"] for name in ("idle", "other"))  # noqa: E731
            eventually(lambda: balloons() <= 700 * MIB, "the machines within their budget", 120)
            assert available("idle") < full - 100
            assert all(one["why"] for one in lines() if one["event"] == "balloon")
            fill("idle", 330)
            eventually(lambda: stats("idle")["memory"]["balloon"] >= 450 * MIB, "memory for who needs it", 120)
            assert stats("other")["memory"]["balloon"] >= 192 * MIB
            assert any("short" in one["why"] for one in lines() if one.get("machine") == "idle" and "why" in one)
        assert look("idle")[1]["guest_oom"]["severity"] == "good"


def test_a_guest_driven_out_of_memory_is_reported_with_what_was_killed(tmp_path):
    with machine("web"):
        assert look("web")[0] == 0
        with watching(tmp_path, "web") as (_, lines):
            eventually(lambda: (tmp_path / "watch.jsonl").exists(), "the watch")
            assert guest("web", "tail /dev/zero").returncode == 137
            eventually(lambda: told(lines, "guest_oom"), "the report of the killed process")
            assert "tail" in told(lines, "guest_oom")[0]["evidence"]
        status, findings = look("web")
        assert (status, findings["guest_oom"]["severity"]) == (1, "bad")
        assert call("stop", "web").returncode == call("start", "web").returncode == 0
        assert look("web")[1]["guest_oom"]["severity"] != "bad"


def test_a_panicking_guest_is_reported_at_once(tmp_path):
    with machine("web"), watching(tmp_path, "web", "--interval", "600") as (process, lines):
        eventually(lambda: "qmp.sock" in _sockets(process.pid), "the watch to listen")
        guest_dies = subprocess.Popen(
            [*TINAMOU, "exec", "web", "--", "sh", "-c", "sleep 2; echo c > /proc/sysrq-trigger"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            eventually(lambda: told(lines, "guest_panic"), "the report of the panic")
        finally:
            guest_dies.kill()
            guest_dies.wait()
        assert "sysrq" in told(lines, "guest_panic")[0]["evidence"]


@pytest.mark.root
def test_a_disk_that_fills_its_file_system_is_reported_before_and_after(tmp_path, monkeypatch, leftovers):
    place = Path(tempfile.mkdtemp(prefix="tm-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M,mode=711", "tm-full", place], check=True)
    try:
        monkeypatch.setenv("TINAMOU_STATE", str(place))
        with machine("web", "--disk", "size=256M"):
            assert look("web")[1]["disk_space"]["severity"] == "info"
            guest("web", "dd if=/dev/urandom of=/dev/vda bs=1M count=58 conv=fsync")
            status, findings = look("web")
            assert (status, findings["disk_space"]["severity"]) == (1, "warning"), findings["disk_space"]
            writes = subprocess.Popen(
                [*TINAMOU, "exec", "web", "--", "dd", "if=/dev/urandom", "of=/dev/vda", "bs=1M", "count=80", "conv=fsync"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            eventually(lambda: json.loads(call("show", "web", "--json").stdout)["state"] == "io-error", "a full disk")
            findings = look("web")[1]
            assert findings["disk_stopped"]["severity"] == findings["disk_space"]["severity"] == "bad"
            assert "no space left for disk0" in findings["disk_stopped"]["evidence"]
            assert "tinamou resume web" in findings["disk_stopped"]["fix"]
            subprocess.run(["mount", "-o", "remount,size=400M", place], check=True)
            assert call("resume", "web").returncode == 0
            assert writes.wait(120) == 0
            assert look("web")[1]["disk_stopped"]["severity"] == "good"
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


@pytest.mark.root
def test_a_qemu_the_host_ended_for_lack_of_memory_is_reported_as_such(tmp_path, state):
    """The limit is lowered while it runs: tinamou starts none below a limit it would not fit."""
    with machine("web", "--set", "limits.memory=900M"):
        entries = Journal(state / "machines/web").open_entries().values()
        folder = next(Path(place) for one in entries if one["kind"] == "cgroup" for place in one["places"])
        limit = next(path for name in ("memory.max", "memory.limit_in_bytes") if (path := folder / name).exists())
        with watching(tmp_path, "--interval", "600") as (process, lines):
            eventually(lambda: "qmp.sock" in _sockets(process.pid), "the watch to listen")
            if (folder / "memory.swap.max").exists():
                (folder / "memory.swap.max").write_text("0")
            limit.write_text(str(330 * MIB))
            guest("web", f"{HOLD} count=400")
            eventually(lambda: told(lines, "qemu_killed"), "the cause of its end")
            assert "limits.memory = 900M" in told(lines, "qemu_killed")[0]["evidence"]
        status, findings = look("web")
        assert (status, findings["qemu_killed"]["severity"]) == (1, "bad")


@pytest.mark.slow
def test_a_guest_whose_agent_stopped_and_a_qemu_that_was_stopped_are_reported(tmp_path):
    with machine("web"):
        assert look("web")[1]["guest_silent"]["severity"] == "good"
        stopped = call("exec", "--timeout", "20", "web", "--", "sh", "-c", "kill -STOP $(pidof attended)")
        assert stopped.returncode == 0, stopped.stderr  # said by the resident: the agent could not
        status, findings = look("web")
        assert (status, findings["guest_silent"]["severity"], findings["guest_memory"]["severity"]) == (1, "bad", "good")
        pid = json.loads(call("show", "web", "--json").stdout)["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            status, findings = look("web")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (status, findings["qemu_silent"]["severity"], findings["guest_silent"]["severity"]) == (1, "bad", "unknown")


def test_a_watch_leaves_the_monitor_to_who_wants_it(tmp_path, leftovers):
    """Suspending a machine needs the monitor that the watch listens on; the machine goes, comes, and is heard again."""
    with machine("web"), watching(tmp_path, "--interval", "1") as (process, lines):
        pid = process.pid
        listens = lambda: "qmp.sock" in _sockets(pid)  # noqa: E731
        eventually(listens, "the watch to listen")
        assert call("suspend", "web").returncode == 0
        assert call("resume", "web").returncode == 0
        eventually(listens, "the watch to listen again")
        assert call("exec", "web", "--", "true").returncode == 0
        assert lines() == []


def _sockets(pid):
    """The paths at the other end of a process's unix sockets, as ``ss`` shows them."""
    done = subprocess.run(["ss", "-xpH"], capture_output=True, text=True, check=True)
    peers = {}
    for line in done.stdout.splitlines():
        words = line.split()
        peers[words[5]] = words[4]
    mine = [line.split() for line in done.stdout.splitlines() if f"pid={pid}," in line]
    return " ".join(peers.get(words[7], "") for words in mine)


def test_a_watch_of_nothing_is_refused_and_a_unit_is_printed():
    assert call("watch", "--once", "nobody").returncode == 118
    assert call("watch", "--budget", "1G").returncode == 110
    assert call("watch", "--balance", "--budget", "lots").returncode == 110
    done = call("watch", "--once")
    assert (done.returncode, done.stdout) == (0, "0 machines: all is well\n")
    unit = call("watch", "--balance", "--budget", "8G", "--unit").stdout
    assert "watch --interval 10 --balance --budget 8G\n" in unit
    assert f"TINAMOU_STATE={os.environ['TINAMOU_STATE']}" in unit

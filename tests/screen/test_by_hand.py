"""QEMU's monitor, a debugger and dumps, on a machine that runs: what comes of it, and that the machine is as it was."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from typed import begin, call, eventually, tinamou

from tinamou import Machine, aio
from tinamou.errors import SpecError, StateError
from tinamou.machine.by_hand import Said, ask, qmp_line
from tinamou.parts.display import has_spice
from tinamou.probe.qemu import find_binary, probe_qemu

pytestmark = pytest.mark.vm


def test_commands_are_written_as_words_or_json():
    assert qmp_line(["query-status"]) == Said("query-status", {})
    assert qmp_line(["a", "size=1073741824", "on=true", "name=disk 0", "file.driver=raw", "file.x=null"]) == Said(
        "a", {"size": 1 << 30, "on": True, "name": "disk 0", "file": {"driver": "raw", "x": None}}
    )
    assert qmp_line(['{"execute": "stop", "arguments": {"a": 1}}']) == Said("stop", {"a": 1})
    wrong = [["a", "b"], ["a", "=1"], ['{"execute": 3}'], ["{"], ['{"execute": "a", "arguments": []}']]
    twice = [["a", "a=1", "a=2"], ["a", "a=1", "a.b=2"], ["a", "a.b=2", "a=1"], ["a", "b=1", "b.c.d=2"]]
    for words in (*wrong, *twice):
        with pytest.raises(SpecError):
            qmp_line(words)


class Untold:
    """A machine whose QEMU is not to be asked anything."""

    async def session(self) -> None:
        raise ConnectionError("QEMU would have been told")


@pytest.mark.parametrize(
    "said",
    [
        Said("block-stream"),
        Said("block_resize"),
        Said("x-blockdev-change"),
        Said(line=" block_stream disk0"),
        Said(line="block_job_cancel disk0"),
        Said("human-monitor-command", {"command-line": " device_del net0"}),
    ],
)
def test_what_tinamou_keeps_account_of_is_refused_however_it_is_written(said):
    with pytest.raises(StateError, match="by hand"):
        asyncio.run(ask(Untold(), said))
    with pytest.raises(ConnectionError):
        asyncio.run(ask(Untold(), said, force=True))


@pytest.mark.parametrize(
    "said",
    [Said("block-dirty-bitmap-add"), Said(line="info block"), Said("human-monitor-command", {"command-line": ""})],
)
def test_what_it_keeps_no_account_of_is_said(said):
    with pytest.raises(ConnectionError):
        asyncio.run(ask(Untold(), said))


@pytest.fixture
def held():
    tinamou("run", "-d", "--name", "held", "--memory", "256M", "--net", "none")
    yield "held"
    call("rm", "-f", "held")


@pytest.fixture
def folder(state):
    return state


def doing(name):
    return json.loads(tinamou("show", name, "--json"))["state"]


def test_what_is_said_by_hand_is_done_and_written_down(held, folder):
    assert json.loads(tinamou("monitor", held, "query-status"))["running"] is True
    assert "running" in tinamou("monitor", held, "--hmp", "info", "status")
    done = call("monitor", held, input="query-name\nno-such\nquery-kvm\n")
    assert (done.returncode, done.stdout.count("{"), "no-such" in done.stderr) == (115, 2, True)
    refused = call("monitor", held, "device_del", "id=balloon0")
    assert (refused.returncode, "--force" in refused.stderr) == (118, True)
    assert call("monitor", held, "--hmp", "drive_del x").returncode == 118
    machine = Machine.open(held)
    assert "running" in machine.hmp("info status")
    with pytest.raises(StateError, match="by hand"):
        machine.hmp("device_del balloon0")
    tinamou("monitor", held, "stop")
    assert doing(held) == "paused"
    tinamou("resume", held)
    call("monitor", held, "quit")
    eventually(lambda: doing(held) == "stopped", "the end of QEMU")
    lines = (folder / "machines" / held / "monitor.log").read_text().splitlines()
    said = [(one["said"], one["became"]) for one in map(json.loads, lines)]
    assert said[:2] == [("query-status", "asked"), ("query-status", "done")]
    assert ("quit", "asked") in said
    assert not any(word in ("device_del", "drive_del x") for word, _ in said)
    assert any(word == "no-such" and "CommandNotFound" in became for word, became in said)
    tinamou("start", held)


@pytest.mark.slow
def test_what_was_forced_is_not_taken_for_described(held):
    assert call("monitor", held, "--force", "device_add", "driver=pvpanic-pci", "id=extra").returncode in (0, 115)
    assert call("monitor", held, "-f", "object-add", "qom-type=rng-builtin", "id=extra-rng").returncode == 0
    tinamou("monitor", held, "-f", "device_add", "driver=virtio-rng-pci", "id=extra1", "rng=extra-rng", "bus=plug1")
    refused = call("suspend", held)
    assert (refused.returncode, "extra1 was plugged in while it ran" in refused.stderr) == (118, True), refused.stderr
    assert doing(held) == "running"


def test_a_dump_is_opened_by_others(held, tmp_path):
    core, packed = tmp_path / "core", tmp_path / "core.kdump"
    tinamou("pause", held)
    at = re.search(r"RIP=([0-9a-f]{16})", tinamou("monitor", held, "--hmp", "info", "registers"))
    assert at, "QEMU says where the guest stands"
    told = json.loads(tinamou("dump", held, str(core), "--json"))
    assert told["size"] == core.stat().st_size > 256 << 20
    assert core.stat().st_blocks * 512 < told["size"]
    head = core.read_bytes()[:18]
    assert (head[:5], head[16]) == (b"\x7fELF\x02", 4)  # ELFCLASS64, ET_CORE
    if shutil.which("gdb"):
        words = ["gdb", "-nx", "-batch", "-c", str(core), "-ex", "info registers rip"]
        seen = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        assert f"0x{int(at[1], 16):x} " in seen, seen
    tinamou("resume", held)
    tinamou("dump", held, str(packed), "--format", "kdump-zlib")
    assert packed.read_bytes()[:12] == b"makedumpfile"
    assert packed.stat().st_size < core.stat().st_size / 2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["core", "core.kdump"]
    assert call("dump", held, str(tmp_path / "none" / "core")).returncode != 0
    assert doing(held) == "running"
    assert tinamou("exec", held, "--", "echo", "lives") == "lives\n"


@pytest.mark.slow
def test_a_cancelled_dump_leaves_nothing_and_the_guest_runs_on(held, tmp_path):
    async def ended_early():
        machine = aio.Machine.open(held)
        running = asyncio.ensure_future(machine.dump(tmp_path / "core", format="kdump-zlib"))
        while not any(one.stat().st_size for one in tmp_path.iterdir()):
            assert not running.done()
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(ended_early())
    assert list(tmp_path.iterdir()) == []
    assert doing(held) == "running"
    assert call("dump", held, str(tmp_path / "again")).returncode == 0


def test_gdb_sees_the_guest_and_lets_it_run_on(held, folder):
    path = folder / "machines" / held / "gdb.sock"
    server = begin("gdb", held, "--server")
    try:
        assert server.stdout.readline().decode() == f"target remote {path}\n"
        assert call("gdb", held, "--server").returncode == 118
        with socket.socket(socket.AF_UNIX) as debugger:
            debugger.connect(str(path))
            eventually(lambda: doing(held) == "paused", "a guest that stands still")
        assert doing(held) == "paused"
    finally:
        server.terminate()
        server.wait(60)
    assert not path.exists()
    assert doing(held) == "running"


def told(name):
    """Which of the events of its disks QEMU tells now."""
    rows = json.loads(tinamou("trace", name, "--list", "--json", "virtio_blk_*"))
    return {one["name"] for one in rows if one["told"]}


def test_events_are_told_while_it_is_asked_and_no_longer(tmp_path):
    """Real events of a real disk; what was on before stays on."""
    tinamou("run", "-d", "--name", "told", "--memory", "256M", "--net", "none", "--disk", "size=8M")
    try:
        tinamou("monitor", "told", "trace-event-set-state", "name=virtio_blk_req_complete", "enable=true")
        tracing = begin("trace", "told", "virtio_blk_handle_read", "virtio_blk_req_*")
        try:
            eventually(lambda: "virtio_blk_handle_read" in told("told"), "events that are switched on")
            tinamou("exec", "told", "--", "dd", "if=/dev/vda", "of=/dev/null", "bs=4k", "count=1", "skip=16")
            lines = [tracing.stdout.readline().decode() for _ in range(2)]
            assert "virtio_blk_handle_read" in lines[0] and "sector 128" in lines[0], lines
            assert "virtio_blk_req_complete" in lines[1], lines
        finally:
            tracing.terminate()
            _, said = tracing.communicate(timeout=60)
        assert (tracing.returncode, said) == (0, b"Ctrl-C ends it\n")
        assert told("told") == {"virtio_blk_req_complete"}
        tracing = begin("trace", "told", "virtio_blk_*")
        eventually(lambda: len(told("told")) > 1, "events that are switched on")
        tinamou("kill", "told")
        assert tracing.wait(60) == 0
        assert call("trace", "told", "--list").returncode == 118
    finally:
        call("rm", "-f", "told")


def test_events_there_are(held):
    every = tinamou("trace", held).splitlines()
    assert len(every) > 1000 and every[0].split() == ["NAME", "TOLD"]
    assert any(line.split() == ["virtio_blk_handle_read"] for line in every)
    refused = call("trace", held, "virtio_blk_*", "nosuch", "nosuch_*")
    assert (refused.returncode, refused.stderr.count("has no such event"), told(held)) == (118, 2, set())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gdb"), reason="no gdb on this host (script/setup installs it)")
def test_the_command_starts_gdb(held):
    said = tinamou("gdb", held, "--", "-batch", "-ex", "info registers rip")
    assert "rip" in said
    assert doing(held) == "running"
    assert tinamou("exec", held, "--", "echo", "lives") == "lives\n"


def test_where_a_screen_is(held):
    refused = call("display", held)
    assert (refused.returncode, "has no screen" in refused.stderr) == (118, True)
    tinamou("run", "-d", "--name", "lit", "--display", "vnc", "--no-wait", "--net", "none")
    try:
        address = tinamou("display", "lit", "--print").strip()
        assert address == json.loads(tinamou("show", "lit", "--json"))["display"]
        assert address.startswith("vnc+unix:///")
        assert call("display", "lit", DISPLAY="", WAYLAND_DISPLAY="").stdout.strip() == address
    finally:
        call("rm", "-f", "lit")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("spicy-screenshot"), reason="needs spice-client-gtk's spicy-screenshot")
@pytest.mark.skipif(not has_spice(probe_qemu(find_binary(os.uname().machine))), reason="this QEMU has no SPICE")
def test_a_viewer_of_spice_sees_it(tmp_path):
    """SPICE's own client; the guest has the line to its agent, and runs on under another QEMU."""
    screen = {"type": "spice", "redirected_usb": 2}
    with Machine(name="seen", keep=True, display=screen, forkable=True) as machine:
        shown = tmp_path / "shown.ppm"
        seen = ["spicy-screenshot", f"--uri=spice+unix://{machine.record.path}/run/spice.sock", "-o", shown]
        subprocess.run(seen, check=True, capture_output=True, timeout=120)
        assert shown.read_bytes().startswith(b"P6")
        assert "com.redhat.spice.0" in machine.run("cat /sys/class/virtio-ports/*/name").text.split()
        (tmp_path / "sent").write_bytes(b"x" * 100000)
        machine.put(tmp_path / "sent", "/tmp/sent")  # by a port that is plugged in beside these
        assert "cannot be taken twice" in machine.upgrade().why
        assert machine.run("wc -c < /tmp/sent").text.strip() == "100000"
        machine.kill()
    call("rm", "-f", "seen")


def test_a_dump_goes_over_no_device(held):
    refused = call("dump", held, "/dev/null")
    assert (refused.returncode, "no regular file" in refused.stderr) == (118, True)
    assert Path("/dev/null").is_char_device()

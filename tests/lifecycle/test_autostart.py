"""Machines that start with the host: the units are systemd's, and a real systemd starts and ends machines by them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from typed import begin, call, tinamou

from tinamou import Machine
from tinamou.machine import attending, autostart, known_by
from tinamou.machine.autostart import Autostart
from tinamou.state.machines import find, machines_dir
from tinamou.state.record import Record, create

SYSTEMD = Path("/lib/systemd/systemd")


@pytest.fixture(autouse=True)
def units(tmp_path, monkeypatch):
    monkeypatch.setenv("TINAMOU_UNITS", str(tmp_path / "units"))
    return tmp_path / "units"


def known(*names, **more):
    for name in names:
        (machines_dir() / name).mkdir(parents=True)
        create(Record(name=name, directory=str(machines_dir() / name), spec={"image": "tiny"}, **more))


def files(folder):
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if not one.is_dir())


def test_units_are_written_listed_and_taken_back(units):
    known("web", "db")
    tinamou("autostart", "db", "--grace", "120")
    tinamou("autostart", "web", "--after", "db", "--delay", "5", "--suspend", "--restart", "on-failure")
    rows = {one["name"]: one for one in json.loads(tinamou("autostart", "--json"))}
    assert rows["web"] | {"unit": ""} == {
        **{"name": "web", "after": ["db"], "delay": 5.0, "suspend": True, "restart": "on-failure", "grace": 30.0, "unit": ""}
    }
    target = "multi-user.target.wants" if os.geteuid() == 0 else "default.target.wants"
    everything = [f"{target}/tinamou@db.service", f"{target}/tinamou@web.service"]
    everything += [f"tinamou@{name}.service.d/10-tinamou.conf" for name in ("db", "web")] + ["tinamou@.service"]
    assert files(units) == sorted(everything)
    own = (units / "tinamou@web.service.d/10-tinamou.conf").read_text()
    assert "After=tinamou@db.service" in own
    assert (units / target / "tinamou@web.service").resolve() == units / "tinamou@.service"
    if shutil.which("systemd-analyze"):
        path = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}
        words = ["systemd-analyze", "verify", str(units / target / "tinamou@web.service")]
        done = subprocess.run(words, env=path, capture_output=True, text=True, check=False)
        ours = [line for line in done.stderr.splitlines() if "tinamou" in line]
        assert (done.returncode, ours) == (0, []), done.stderr
    tinamou("autostart", "web", "--off")
    assert call("autostart", "web", "--off").returncode == 118
    tinamou("rm", "db")
    assert files(units) == []


def test_what_cannot_be_is_refused():
    known("a", "b", "c")
    known("gone", ephemeral=True, pid=os.getpid(), started=0, owner_pid=os.getpid())
    tinamou("autostart", "b", "--after", "a")
    tinamou("autostart", "c", "--after", "b")
    refused = call("autostart", "a", "--after", "c", "--after", "nosuch")
    assert refused.returncode == 118
    assert "it comes after a" in refused.stderr
    assert "there is no such machine" in refused.stderr
    assert call("autostart", "a", "--after", "a").returncode == 118
    for words in (
        ["a", "--off", "--delay", "3"],
        ["a", "--off", "--grace", "30"],
        ["a", "--attend", "--grace", "5"],
        ["a", "--json"],
        ["--suspend"],
        ["--off"],
        ["--grace", "30", "--json"],
    ):
        refused = call("autostart", *words)
        assert (refused.returncode, "do not go together" in refused.stderr) == (110, True), words
    assert call("autostart", "a", "--restart", "sometimes").returncode == 2
    (machines_dir() / "b" / "autostart.json").write_text('{"after": [], "restart": "maybe"}')
    assert "cannot be read" in call("autostart").stderr
    with pytest.raises(autostart.StateError, match="thrown away"):
        autostart.turn_on(Record(name="x", directory="/x", spec={}, ephemeral=True), Autostart())


def test_a_machine_with_a_new_name_keeps_its_place(units):
    known("old", "other")
    autostart.turn_on(find("old"), Autostart(delay=3))
    Machine.open("other").autostart(after=("old",))
    tinamou("rename", "old", "new")
    assert not [one for one in files(units) if "old" in one]
    assert autostart.settings_of(find("new")) == Autostart(delay=3)
    assert autostart.settings_of(find("other")) == Autostart(after=("new",))
    Machine.open("other").autostart(off=True)
    assert autostart.settings_of(find("other")) is None


def test_a_machine_is_attended_as_was_said_last(monkeypatch):
    """Its unit's process runs on: what is said meanwhile holds before it starts it again, and when it ends it."""
    known("web")
    autostart.turn_on(find("web"), Autostart(restart="always", delay=0))
    lives, said, stopped = [], [], []

    async def life(name, settings, start, say):
        lives.append(settings.restart)
        if len(lives) == 1:
            autostart.turn_on(find(name), Autostart(restart="on-failure", grace=7))
            return ""
        raise AssertionError("it was started again")

    async def at_rest(record):
        shutil.rmtree(record.path)

    monkeypatch.setattr(attending, "_life", life)
    monkeypatch.setattr(attending, "_started_by_hand", at_rest)
    monkeypatch.setattr(attending, "_FIRST", 0.0)
    asyncio.run(attending.attend("web", None, say=lambda text, _: said.append(text)))
    assert (lives, said) == (["always"], ["web is at rest"])

    async def stop(machine, grace):
        stopped.append(grace)

    known("db")
    autostart.turn_on(find("db"), Autostart(grace=7))
    monkeypatch.setattr(attending.life, "running", find)
    monkeypatch.setattr(attending.life, "stop", stop)
    asyncio.run(attending._ended("db", Autostart(grace=30), say=lambda text, _: said.append(text)))
    (find("db").file("autostart.json")).write_text("nonsense")
    asyncio.run(attending._ended("db", Autostart(grace=30), say=lambda text, _: said.append(text)))
    assert stopped == [7, 30]
    assert "cannot be read" in said[-1] and "as before" in said[-1]


def test_another_machine_that_cannot_be_read_keeps_no_rename_from_being_one(units):
    """All that can follow follows, the clones first; what does not is told, and done once it is put right."""
    known("old", "late", "odd")
    known("two", base="old")
    for name in ("late", "odd"):
        Machine.open(name).autostart(after=("old",))
    autostart.turn_on(find("old"), Autostart(delay=3))
    (machines_dir() / "odd" / "autostart.json").write_text("nonsense")
    done = call("rename", "old", "new")
    assert done.stdout == "new\n" and "how odd starts with the host cannot be read" in done.stderr, done.stderr
    assert find("two").base == "new" and autostart.settings_of(find("late")) == Autostart(after=("new",))
    assert not [one for one in files(units) if "old" in one] and (find("new").path / "renamed").read_text() == "old"
    (machines_dir() / "odd" / "autostart.json").write_text('{"after": ["old"]}')
    tinamou("ls")
    assert autostart.settings_of(find("odd")) == Autostart(after=("new",)) and not (find("new").path / "renamed").exists()


def test_a_rename_that_was_killed_is_finished_by_the_next_command(units):
    known("old", "other")
    known("two", base="old")
    autostart.turn_on(find("old"), Autostart(delay=3))
    Machine.open("other").autostart(after=("old",))
    with pytest.raises(RuntimeError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_by, "settle", interrupted)
        Machine.open("old").rename("new")
    assert find("two").base == "old" and find("new").former == ["old"]
    tinamou("ls")
    assert find("two").base == "new" and autostart.settings_of(find("other")) == Autostart(after=("new",))
    assert not [one for one in files(units) if "old" in one] and not (find("new").path / "renamed").exists()


def interrupted(_):
    raise RuntimeError("killed")


def shown(name):
    return json.loads(tinamou("show", name, "--json"))


@pytest.fixture
def kept():
    tinamou("run", "-d", "--name", "kept", "--net", "none", "--memory", "192M")
    yield "kept"
    call("rm", "-f", "kept")


def told_to_end(process):
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err.decode()
    return err.decode()


@contextlib.contextmanager
def attended(name):
    """The unit's process, once it has seen the machine run, and a function that waits for what it tells systemd next."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(b"\0tinamou-test-%d" % os.getpid())
        line.settimeout(240)
        os.environ["NOTIFY_SOCKET"] = f"@tinamou-test-{os.getpid()}"
        try:
            process = begin("autostart", name, "--attend")
        finally:
            del os.environ["NOTIFY_SOCKET"]

        def told(status):
            while status not in (said := line.recv(4096).decode()):
                pass
            return said

        told("STATUS=running")
        yield process, told


@pytest.mark.vm
@pytest.mark.slow
def test_it_is_started_again_and_ended_in_order(kept):
    tinamou("autostart", kept, "--restart", "on-failure")
    with attended(kept) as (process, told):
        before = shown(kept)["pid"]
        os.kill(before, signal.SIGKILL)
        assert "nobody saw how its QEMU ended" in told("started again in 2 s")
        told("STATUS=running")
        assert shown(kept)["pid"] not in (None, before)
        call("exec", kept, "--", "poweroff", "-f")
        told("STATUS=at rest")
        tinamou("start", kept)
        told("STATUS=running")
        tinamou("stop", kept)
        told("STATUS=at rest")
        tinamou("start", kept)
        told("STATUS=running")
        assert f"{kept} is at rest" in told_to_end(process)
    assert shown(kept)["state"] == "stopped"


@pytest.mark.vm
@pytest.mark.slow
def test_it_is_suspended_and_taken_up(kept):
    tinamou("exec", kept, "--", "touch", "/run/here")
    tinamou("autostart", kept, "--suspend")
    with attended(kept) as (process, _):
        told_to_end(process)
    assert shown(kept)["state"] == "suspended"
    with attended(kept) as (process, _):
        assert call("exec", kept, "--", "test", "-e", "/run/here").returncode == 0
        told_to_end(process)


BOOT = """
mount -t tmpfs none /run && mkdir -p /run/systemd/system && mkdir -m 700 -p /run/x
export XDG_RUNTIME_DIR=/run/x SYSTEMD_UNIT_PATH=$UNITS:
printf '[Unit]\\nRequires=basic.target\\nAfter=basic.target\\n' > $UNITS/multi-user.target
mkdir $UNITS/tinamou@.service.d
cat > $UNITS/tinamou@.service.d/told.conf << .
[Service]
StandardError=append:$UNITS/said
ExecStartPost=/bin/sh -c 'echo up %i >> $UNITS/order'
ExecStopPost=/bin/sh -c 'echo down %i >> $UNITS/order'
.
$SYSTEMD --user --unit=multi-user.target &
until systemctl --user is-system-running --wait 2> /dev/null | grep -E 'running|degraded'; do sleep 0.2; done
for name in front back; do systemctl --user show -p ActiveState,StatusText tinamou@$name; done
systemctl --user exit
wait
"""


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(not SYSTEMD.exists(), reason="no systemd on this host")
def test_a_real_systemd_starts_and_ends_them_in_order(units):
    for name in ("back", "front"):
        tinamou("run", "-d", "--name", name, "--net", "none", "--memory", "192M")
        tinamou("stop", name)
    try:
        tinamou("autostart", "back")
        tinamou("autostart", "front", "--after", "back")
        where = {**os.environ, "UNITS": str(units), "SYSTEMD": str(SYSTEMD)}
        words = ["unshare", "-m", "-p", "-f", "--mount-proc", "--propagation", "private", "bash", "-ec", BOOT]
        done = subprocess.run(words, env=where, capture_output=True, text=True, timeout=600, check=False)
        said = (units / "said").read_text()
        assert done.stdout.count("ActiveState=active") == 2, done.stdout + done.stderr + said
        assert done.stdout.count("StatusText=running") == 2, done.stdout
        assert (units / "order").read_text().splitlines() == ["up back", "up front", "down front", "down back"], said
        assert [shown(name)["state"] for name in ("back", "front")] == ["stopped", "stopped"]
    finally:
        call("rm", "-f", "back", "front")

"""Waiting for real guests: those that answer, and those that never will."""

from __future__ import annotations

import asyncio
import json

import pytest
from running import Started, bare, local_agent, qemu, run, scripted, tiny

from tinamou.control import connect_qmp
from tinamou.guest.agent import Agent
from tinamou.guest.diagnose import Stage
from tinamou.guest.ready import NotReadyError, wait_ready


async def wait(machine: Started, *, timeout: float = 100, proof="run", heard=lambda: None):
    async with await connect_qmp(machine.directory, owner=True, alive=machine.alive) as qmp, machine.agent() as agent:
        heard()
        return await wait_ready(
            machine.directory,
            agent,
            qmp=qmp,
            alive=machine.alive,
            exit_status=machine.process.poll,
            started=machine.at,
            timeout=timeout,
            proof=proof,
        )


@pytest.mark.vm
def test_the_tiny_guest_gets_ready(state):
    with tiny(state) as machine:
        report = run(wait(machine))
    stages = [milestone.stage for milestone in report.milestones]
    assert stages == sorted(set(stages))
    assert stages[0] == Stage.QEMU
    assert stages[-2:] == [Stage.AGENT, Stage.READY]
    times = [milestone.at for milestone in report.milestones]
    assert times == sorted(times)
    assert (report.proof, report.seconds) == ("run", times[-1])


@pytest.mark.vm
def test_a_panic_is_reported_before_the_deadline(state):
    with tiny(state, append="panic=0 init=/nonexistent rdinit=/nonexistent") as machine:
        with pytest.raises(NotReadyError) as caught:
            run(wait(machine, timeout=250))
        assert machine.alive()
    assert caught.value.exit_status is None
    assert caught.value.reached == Stage.KERNEL
    assert "panic" in [finding.kind for finding in caught.value.findings]
    assert caught.value.evidence["kernel panic"].count("Kernel panic - not syncing") == 1
    assert "Kernel panic" not in caught.value.evidence["serial log"]


@pytest.mark.vm
def test_a_panic_that_ends_qemu_is_still_a_panic(state):
    with tiny(state, append="panic=-1 rdinit=/nonexistent") as machine, pytest.raises(NotReadyError) as caught:
        run(wait(machine, timeout=250))
    assert caught.value.exit_status == 0
    assert "QEMU ended with status 0" in caught.value.what
    assert "panic" in [finding.kind for finding in caught.value.findings]


def test_no_boot_disk(state):
    (state / "disk").write_bytes(bytes(1 << 20))
    # The firmware speaks on the serial line only when told to (source: SeaBIOS, etc/sercon-port).
    disk = ["-machine", "pc,graphics=off", "-m", "64", "-drive", f"file={state}/disk,format=raw,if=ide"]
    console = [
        *("-chardev", f"socket,id=s,path={state}/console.sock,server=on,wait=off,logfile={state}/serial.log"),
        *("-serial", "chardev:s", "-chardev", f"socket,id=a,path={state}/agent.sock,server=on,wait=off"),
    ]
    with qemu(state, *disk, *console) as machine, pytest.raises(NotReadyError) as caught:
        run(wait(machine, timeout=100))
    assert [finding.kind for finding in caught.value.findings][:1] == ["no-boot-device"]
    assert caught.value.reached == Stage.FIRMWARE
    assert machine.process.returncode == -9


def test_qemu_that_is_killed(state):
    async def work(machine):
        heard = asyncio.Event()
        waiting = asyncio.create_task(wait(machine, heard=heard.set))
        await asyncio.wait_for(heard.wait(), 60)
        machine.process.kill()
        await waiting

    with bare(state) as machine, pytest.raises(NotReadyError, match="QEMU ended by signal SIGKILL") as caught:
        run(work(machine))
    assert caught.value.reached == Stage.QEMU
    assert caught.value.exit_status == -9


def test_a_guest_that_never_answers(state):
    with bare(state) as machine, pytest.raises(NotReadyError, match=r"did not answer within 0\.5 s") as caught:
        run(wait(machine, timeout=0.5))
    assert caught.value.reached == Stage.QEMU
    assert caught.value.findings == ()


def test_an_agent_that_may_not_run_commands_is_proof_of_less(state):
    """The guest's side of the agent's line is a real agent on this host."""
    with bare(state) as machine, local_agent(state, "-b", "guest-exec"):
        report = run(wait(machine))
    assert report.proof == "answer"
    with bare(state) as machine, local_agent(state):
        assert run(wait(machine)).proof == "run"
        assert run(wait(machine, proof="answer")).proof == "answer"


def test_a_boot_is_not_judged_by_the_one_before_it(state):
    log = state / "serial.log"
    log.write_text("[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n")

    async def wait(machine, start):
        async with machine.agent() as agent:
            await wait_ready(machine.directory, agent, alive=machine.alive, timeout=3, log_from=start)

    with bare(state) as machine:
        with pytest.raises(NotReadyError, match="did not answer within 3 s"):
            run(wait(machine, log.stat().st_size))
        with pytest.raises(NotReadyError, match="no root filesystem"):
            run(wait(machine, 0))


class Reporting:
    """A QMP server that reports the given events, each a second after the one before unless it says how many.

    What QEMU really says is in their form (QEMU's QMP reference).
    """

    def __init__(self, *events):
        self.events = events

    async def __call__(self, reader, writer):
        writer.write(b'{"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}}, "capabilities": []}}\n')
        asked = json.loads(await reader.readline())
        writer.write(json.dumps({"return": {}, "id": asked["id"]}).encode() + b"\n")
        await asyncio.sleep(0.1)
        at = 0.0
        for name, data, *later in self.events:
            at += later[0] if later else 1.0
            stamp = {"seconds": int(at), "microseconds": round(at % 1 * 1e6)}
            writer.write(json.dumps({"event": name, "data": data, "timestamp": stamp}).encode() + b"\n")
        await reader.read()
        writer.close()


def reported(directory, *events, printed=""):
    """The error that these events make of the waiting; what was ``printed`` is in the log a second later."""

    async def work():
        if printed:
            asyncio.get_running_loop().call_later(1.0, (directory / "serial.log").write_text, printed)
        async with (
            scripted(directory / "qmp.sock", Reporting(*events)),
            Agent(f"{directory}/agent.sock") as agent,
            await connect_qmp(str(directory), owner=True) as qmp,
        ):
            await wait_ready(str(directory), agent, qmp=qmp, timeout=100)

    with pytest.raises(NotReadyError) as caught:
        run(work())
    return caught.value


RESET = ("RESET", {"guest": True, "reason": "guest-reset"})


def test_what_qemu_reports_ends_the_waiting(state):
    panicked = ("GUEST_PANICKED", {"action": "pause"})
    why = "[    1.0] Kernel panic - not syncing: why"
    error = reported(state, panicked, printed=f"{why}\n")
    assert error.what == "The guest does not answer: the guest's kernel panicked"
    assert error.evidence["kernel panic"] == why, "what it says is waited for"
    (state / "serial.log").unlink()
    assert "restarted 4 times" in reported(state, *[RESET] * 4).what
    assert "shut down (guest-shutdown)" in reported(state, ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})).what


def test_a_few_restarts_are_no_failure(state):
    """SeaBIOS restarting until it gets hold of the machine counts as one."""

    async def work():
        again = [(*RESET, 0.05)] * 40
        async with (
            scripted(state / "qmp.sock", Reporting(RESET, RESET, *again, ("NIC_RX_FILTER_CHANGED", {}))),
            Agent(f"{state}/agent.sock") as agent,
            await connect_qmp(str(state), owner=True) as qmp,
        ):
            return await wait_ready(str(state), agent, qmp=qmp, timeout=100)

    with local_agent(state):
        assert run(work()).proof == "run"

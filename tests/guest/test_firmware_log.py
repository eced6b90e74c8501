"""What the firmware wrote down itself is told where a guest got no further; no answer of QEMU's spoils the error."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import bare, run

from tinamou.control import connect_qmp
from tinamou.control.commands import firmware_log
from tinamou.control.session import RefusedError
from tinamou.guest.diagnose import Stage
from tinamou.guest.failure import not_ready

SAID = b"DXE: no boot device\x1b[2J\nshell is off"


def asked(answer: object) -> bytes:
    """What is made of an answer, which is raised where it is an error."""

    async def execute(command: str, arguments: dict[str, int], timeout: float) -> object:
        assert command == "query-firmware-log" and arguments["max-size"] > 0 and timeout < 60
        if isinstance(answer, Exception):
            raise answer
        return answer

    return asyncio.run(firmware_log(SimpleNamespace(execute=execute)))  # type: ignore[arg-type]


def test_it_is_told() -> None:
    log = base64.b64encode(SAID).decode()
    assert asked({"version": "OVMF", "log": log}) == SAID


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        {"log": 7},
        {"log": "not base64"},
        {"log": "A" * (1 << 20)},
        RefusedError("query-firmware-log", {}, "GenericError", "firmware log buffer not found"),
        TimeoutError(),
    ],
)
def test_no_answer_spoils_the_error(answer: object) -> None:
    assert asked(answer) == b""


def test_it_stands_among_the_evidence(tmp_path: Path) -> None:
    def failed(firmware: bytes) -> dict[str, str]:
        how = {"reason": "it did not answer within 9 s", "at": {Stage.QEMU: 0.1}, "exit_status": None, "ended": False}
        return not_ready(str(tmp_path), Stage.QEMU, firmware=firmware, **how).evidence

    assert failed(SAID)["firmware log"] == "DXE: no boot device\nshell is off"
    assert "firmware log" not in failed(b"")


@pytest.mark.vm
def test_a_real_qemu_that_has_none_is_asked(every_qemu: str, state: Path) -> None:
    async def talk(machine) -> bytes:
        async with await connect_qmp(machine.directory, owner=True) as qmp:
            return await firmware_log(qmp)

    with bare(state) as machine:
        assert run(talk(machine)) == b""

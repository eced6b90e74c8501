"""Every field of a description, through every door: in effect, as guest, QEMU and host show it."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from booting import FIRMWARE, OWN_KERNEL, WINDOWS
from converted import CONVERTED
from hardware import HARDWARE
from looking import as_described
from persistent import PERSISTENT
from placed import IN_PARTS, PLACED, TOO_LARGE
from ways import ALONE, COPIES

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(600)]

EVERY = {**{name: way for name, way in ALONE.items() if name not in ("run -d, start", "Machine()")}, **COPIES}
"""Every door, each once."""


def slow(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.virtiofsd
@pytest.mark.parametrize("door", EVERY)
def test_hardware(door: str, tmp_path: Path, leftovers) -> None:
    as_described(HARDWARE, EVERY[door], tmp_path, leftovers)


@pytest.mark.parametrize(
    "door", [name if name in ("run", "run -d, start, fork") else slow(name) for name in EVERY if name != "warm"]
)
def test_a_kernel_of_ones_own_and_a_seed(door: str, tmp_path: Path, leftovers) -> None:
    as_described(OWN_KERNEL, EVERY[door], tmp_path, leftovers)


@pytest.mark.parametrize("door", [name for name in EVERY if name != "warm"])
def test_firmware(door: str, tmp_path: Path, leftovers) -> None:
    """No door for warm: nothing is known of a guest there that could say that it has booted."""
    as_described(FIRMWARE, EVERY[door], tmp_path, leftovers)


@pytest.mark.parametrize("door", [name if name in ("run", "machine file") else slow(name) for name in ALONE])
def test_persistent_memory(door: str, tmp_path: Path, leftovers) -> None:
    as_described(PERSISTENT, ALONE[door], tmp_path, leftovers)


@pytest.mark.parametrize("door", ["run", *map(slow, (name for name in ALONE if name != "run"))])
def test_a_machine_for_windows(door: str, tmp_path: Path, leftovers) -> None:
    as_described(WINDOWS, ALONE[door], tmp_path, leftovers)


@pytest.mark.parametrize("door", ["run", *map(slow, (name for name in ALONE if name != "run"))])
def test_more_memory_than_there_is(door: str, tmp_path: Path, leftovers) -> None:
    """Copies are not asked: they share what there is."""
    as_described(TOO_LARGE, ALONE[door], tmp_path, leftovers)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[None]:
    """A server on this host that says one thing; its port is in the file ``port``."""

    class Says(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"from the host")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Says) as server:
        (tmp_path / "port").write_text(str(server.server_address[1]))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.mark.usefixtures("answering", "whole_host")
@pytest.mark.parametrize("door", [name if name == "run -d, start" else slow(name) for name in ALONE])
def test_what_it_has_of_the_host_for_itself(door: str, tmp_path: Path, leftovers) -> None:
    """Copies have CPUs of their own (test_copies.py); what a warm one would lack is refused (test_refused.py)."""
    as_described(PLACED, ALONE[door], tmp_path, leftovers)


@pytest.mark.parametrize("door", [slow(name) if name != "Machine()" else name for name in ALONE])
def test_several_parts_and_what_cannot_be_twice(door: str, tmp_path: Path, leftovers) -> None:
    """Its address and port are this machine's alone: what a copy is told instead is in test_copies.py."""
    as_described(IN_PARTS, ALONE[door], tmp_path, leftovers)


@pytest.mark.usefixtures("whole_host")
def test_a_converted_file(tmp_path: Path, leftovers) -> None:
    as_described(CONVERTED, ALONE["machine file"], tmp_path, leftovers)

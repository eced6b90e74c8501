"""Planning for other hosts: those of our own making and recorded ones as the golden file has them, and a recording of this one."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from host_trees import RECORDED
from hosts_cases import FILE, _card, made, planned
from made_hosts import HOSTS, build
from typed import call, tinamou

from tinamou.errors import ProbeError
from tinamou.machine.recording import opened, record
from tinamou.probe.host import probe_host
from tinamou.probe.pci import probe_pci
from tinamou.system.rooted import Rooted

GOLDEN = json.loads(FILE.read_text())


def test_hosts_of_our_own_making() -> None:
    assert len(HOSTS) == 10
    assert made() == GOLDEN["made"]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_hosts(hosts: Callable[[str], Path], name: str) -> None:
    assert planned(hosts(name), [_card(hosts(name))]) == GOLDEN["recorded"][name]


def test_every_refusal_names_its_field() -> None:
    plans = [one for host in GOLDEN["made"].values() for one in host["plans"].values()]
    refused = [text for one in [*plans, *GOLDEN["recorded"].values()] for text in one.get("refused", ())]
    assert len(refused) > 15
    assert all(text.startswith("pci") and " — " in text for text in refused), refused


def test_a_guest_of_several_nodes_sees_which_cards_are_beside_which() -> None:
    """QEMU puts a device that names no bus behind the newest root complex: nothing without one may come after the first."""
    of_all = GOLDEN["made"]["eight-gpus"]["plans"][json.dumps(["10de:20b0"] * 8)]
    assert of_all["roots"] == ["pxb0 bus 64 node 0", "pxb1 bus 160 node 1"]


def test_this_host_is_planned_from_its_recording_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "host.tar.gz"
    record(file)
    with opened(file) as root:
        again, here = probe_host(root), probe_host()
        for name in ("cpus", "caches", "isolated_cpus", "arch", "kernel", "memory", "smt"):
            assert getattr(again, name) == getattr(here, name), name
        assert [one.number for one in again.nodes] == [one.number for one in here.nodes]
        devices = probe_pci(Rooted(), {}).devices
        assert [dataclasses.replace(one, uses=()) for one in probe_pci(Rooted(root), {}).devices] == [
            dataclasses.replace(one, uses=()) for one in devices
        ]
    with pytest.raises(FileExistsError):
        record(file)


def test_a_recording_holds_no_names_of_people_and_places(tmp_path: Path) -> None:
    file = tmp_path / "host.tar.gz"
    record(file)
    with tarfile.open(file) as archive:
        texts = {one.name: archive.extractfile(one).read().decode() for one in archive if one.isfile()}  # type: ignore[union-attr]
    mounted = {line.split()[4] for name, text in texts.items() if name.endswith("mountinfo") for line in text.splitlines()}
    assert mounted <= {"/", "/mounted"}
    assert not [name for name in texts if name.startswith(("root", "home")) or name.split("/")[1].isdigit()]
    assert all(line.endswith(":") for line in texts.get("etc/group", "").splitlines())
    assert not [name for name in texts if name.endswith(("/address", "/serial", "cmdline", "environ"))]


def _archive(*members: tuple[str, bytes, str]) -> bytes:
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, kind, leads in members:
                one = tarfile.TarInfo(name)
                one.type, one.linkname = kind, leads
                archive.addfile(one)
        return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        _archive(("sys/a", tarfile.REGTYPE, "")),
        _archive(("../a", tarfile.REGTYPE, "")),
        _archive(("sys/devices/system/cpu", tarfile.DIRTYPE, ""), ("sys/a", tarfile.SYMTYPE, "/etc")),
        _archive(("sys/devices/system/cpu", tarfile.DIRTYPE, ""), ("sys/a", tarfile.SYMTYPE, "../../etc")),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "host.tar.gz"
    file.write_bytes(content)
    with pytest.raises(ProbeError, match="is no recording"), opened(file):
        pass


def test_by_the_commands(tmp_path: Path) -> None:
    root = build(tmp_path / "host", "eight-gpus")
    drawn = tinamou("pci", "ls", "--tree", "--host", str(root))
    assert drawn.splitlines()[0] == "0000:20 (node 0)"
    assert drawn.count("behind a root port of its own") == 8
    done = call("plan", "tiny", "--pci", "23:00.0", "--host", str(root))
    assert (done.returncode, "TakePciGroup of IOMMU group 40" in done.stdout) == (0, True), done.stderr
    assert "planned for the host of" in done.stderr
    done = call("plan", "tiny", "--pci", "99:00.0", "--host", str(root))
    assert done.returncode, "this host has no such device" in done.stderr
    done = call("host", "record", str(tmp_path / "file"))
    assert (done.returncode, call("host", "record", str(tmp_path / "file")).returncode) == (0, 111), done.stderr

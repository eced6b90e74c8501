"""Planning for other hosts, made up and recorded, as the golden file has them; and a recording of this one."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from host_trees import RECORDED
from hosts_cases import FILE, answers, made
from made_facts import TCG, TINY, facts
from made_hosts import HOSTS, build
from typed import call, tinamou

from tinamou.errors import ProbeError
from tinamou.facts.pci import PciDevice
from tinamou.machine.elsewhere import recorded
from tinamou.machine.passthrough import _rows, rows_of
from tinamou.machine.recording import _scrubbed, opened, record
from tinamou.planner import plan
from tinamou.probe.host import probe_host
from tinamou.probe.pci import probe_pci
from tinamou.probe.qemu import find_binary
from tinamou.spec import load_spec
from tinamou.system.rooted import Rooted

GOLDEN = json.loads(FILE.read_text())


def test_hosts_of_our_own_making() -> None:
    assert len(HOSTS) == 18
    assert made() == GOLDEN["made"]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_hosts(hosts: Callable[[str], Path], name: str) -> None:
    assert answers(hosts(name)) == GOLDEN["recorded"][name]


def test_every_refusal_names_its_field() -> None:
    plans = [one for host in GOLDEN["made"].values() for one in host["plans"].values()]
    plans += [one for host in GOLDEN["recorded"].values() for one in host.values()]
    refused = [text for one in plans for text in one.get("refused", ())]
    assert len(refused) > 40
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
        told, seen = probe_pci(Rooted(root), {}).devices, probe_pci(Rooted(), {}).devices
        assert [dataclasses.replace(one, uses=()) for one in told] == [dataclasses.replace(one, uses=()) for one in seen]
        for kind in ("network interface", "disk"):
            assert [_uses(one, kind) for one in told] == [_uses(one, kind) for one in seen]
    with pytest.raises(FileExistsError):
        record(file)


def _uses(device: PciDevice, kind: str) -> int:
    """How many there are: where a disk is mounted is not recorded."""
    return sum(use.startswith(kind) for use in device.uses)


def test_a_recording_holds_no_names_of_people_and_places(tmp_path: Path) -> None:
    file = tmp_path / "host.tar.gz"
    record(file)
    with tarfile.open(file) as archive:
        texts = {one.name: archive.extractfile(one).read().decode() for one in archive if one.isfile()}  # type: ignore[union-attr]
    mounted = {line.split()[4] for name, text in texts.items() if name.endswith("mountinfo") for line in text.splitlines()}
    assert mounted <= {"/", "/mounted"}
    assert not [name for name in texts if name.startswith(("root", "home")) or name.split("/")[1].isdigit()]
    assert all(line.endswith(":") for line in texts.get("etc/group", "").splitlines())
    assert not [name for name in texts if name.endswith(("/address", "/serial", "/environ"))]
    assert [name for name in texts if name.endswith("cmdline")] == ["proc/cmdline"]
    assert all(word.startswith("pcie_acs_override=") for word in texts["proc/cmdline"].split())


_MOUNTS = """22 1 259:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 259:3 /@ada /home/ada rw - btrfs /dev/sda3 rw,subvol=/@ada
31 22 0:25 / /run/user/1000 rw - tmpfs tmpfs rw
32 22 259:4 /@bob
33 22 259:5 / /srv
"""


@pytest.mark.parametrize(
    ("path", "text", "kept"),
    [
        (
            "/proc/self/mountinfo",
            _MOUNTS,
            "".join(
                f"{row} rw - none none rw\n"
                for row in ("22 1 259:0 / /", "30 22 259:3 / /mounted", "33 22 259:5 / /mounted")
            ),
        ),
        (
            "/proc/self/status",
            "Name:\tbash\nUid:\t1000\nCpus_allowed:\tff\nMems_allowed:\t1\n",
            "Cpus_allowed:\tff\nMems_allowed:\t1\n",
        ),
        ("/proc/self/environ", "SECRET=1", ""),
        ("/proc/cmdline", "root=UUID=1 pcie_acs_override=downstream luks=x", "pcie_acs_override=downstream\n"),
        ("/etc/group", "kvm:x:106:ada,bob\nstaff:x:50:ada\nrender:x\nvideo:x:44\n", "kvm:x:106:\nvideo:x:44:\n"),
        ("/proc/version", "Linux version 6.1.0 (ada@host) #1 SMP", "Linux version 6.1.0\n"),
        ("/proc/self/net/route", "eth0 00000000 0102A8C0 0003", "eth0\n"),
        (
            "/proc/self/net/if_inet6",
            "fe80000000000000505400fffe112233 02 40 20 80 eth0",
            "0 0 0 20 0 eth0\n",
        ),
        (
            "/proc/self/net/ipv6_route",
            "fe800000000000000000000000000000 40 0 00 0 1 1 0 1 eth0\n20010db800000000 40 0 00 0 1 1 0 1 eth0",
            "fe80 0 0 0 0 0 0 0 0 eth0\n0 0 0 0 0 0 0 0 0 eth0\n",
        ),
        ("/proc/self/net/packet", "ffff8880 3 10 0003 2 1 0 1000 1234", "0 0 10 0003 2 0 0 0 0\n"),
        ("/sys/class/net/eth0/mtu", "1500", "1500\n"),
    ],
)
def test_a_recording_names_nobody(path: str, text: str, kept: str) -> None:
    assert _scrubbed(path, text) == kept


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
    ids=[
        "no archive",
        "no machine",
        "a path that leads out",
        "a link",
        "a link that leads out",
    ],  # an archive tells the time
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


@pytest.mark.parametrize(
    ("leased", "count", "given"),
    [
        ([], 2, ["23", "24"]),
        (["23", "24", "25"], 2, ["43", "44"]),
        (["23", "24", "25"], 1, ["26"]),
        (["23", "43", "44"], 4, ["24", "25", "26", "45"]),
    ],
)
def test_cards_of_a_kind_are_behind_one_switch_where_that_can_be(
    tmp_path: Path, leased: list[str], count: int, given: list[str]
) -> None:
    known = recorded(facts(TINY, TCG), str(build(tmp_path / "host", "eight-gpus")))
    held = {f"0000:{bus}:00.0": "other" for bus in leased}
    known = dataclasses.replace(known, pci=dataclasses.replace(known.pci, leased=held))
    made = plan(load_spec({"pci": ["10de:20b0"] * count}), known)
    assert [str(one.props["host"])[5:7] for one in made.elements if one.props.get("driver") == "vfio-pci"] == given


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("disk-in-use", {"02:00.0": ("disk nvme0n1 holds /", False), "03:00.0": ("free", True)}),
        ("one-group", {"01:00.0": ("only together with 0000:00:14.0, 0000:02:00.0", False)}),
        ("without-iommu", {"00:01.0": ("the host's board", False), "01:00.0": ("no IOMMU", False)}),
    ],
)
def test_why_a_device_cannot_be_had(tmp_path: Path, host: str, said: dict[str, tuple[str, bool]]) -> None:
    rows = {
        str(one.device.address).removeprefix("0000:"): (one.state, one.free) for one in rows_of(build(tmp_path / "h", host))
    }
    assert {address: rows[address] for address in said} == said
    facts_of = probe_pci(Rooted(str(tmp_path / "h")), {})
    if host == "disk-in-use":
        leased = dataclasses.replace(facts_of, leased={"0000:03:00.0": "web"})
        assert [one.state for one in _rows(leased, set()) if not one.free][-1] == "leased to web"
        taken = [(one.state, one.free) for one in _rows(facts_of, {"0000:03:00.0"})]
        assert taken[-1] == ("taken, waits for a machine", True)


def test_kvm_runs_what_is_of_the_recorded_hosts_kind(tmp_path: Path) -> None:
    """A recording without devices is of a host with KVM; one that has some says itself."""
    root = build(tmp_path / "host", "workstation")
    [kvm, tcg] = recorded(facts(TINY, TCG), str(root)).accel.trials
    assert (kvm.accel, kvm.works, kvm.why) == ("kvm", True, "") and tcg.works
    arm = dataclasses.replace(facts(TINY, TCG), image=dataclasses.replace(TINY, arch="aarch64"))
    known = recorded(arm, str(root))
    assert not known.accel.trials[0].works and known.accel.best() == tcg
    assert known.accel.trials[0].why == "it has no /dev/kvm for aarch64"


@pytest.mark.usefixtures("every_qemu")
def test_a_real_qemu_puts_them_there(tmp_path: Path) -> None:
    """The machine's devices in their order; in the place of each GPU, which is not here, a source of random numbers."""
    known = recorded(facts(TINY, TCG), str(build(tmp_path / "host", "eight-gpus")))
    described = {"pci": ["10de:20b0"] * 8, "cpu": {"count": 24, "pin": "auto"}, "memory": "4G"}
    made = [one.props for one in plan(load_spec(described), known).elements if one.kind == "device"]
    kinds = ("pxb-pcie", "pcie-root-port", "vfio-pci", "virtio-balloon-pci", "virtio-rng-pci", "virtio-serial-pci")
    words = [find_binary("x86_64"), "-M", "q35", "-nodefaults", "-display", "none", "-accel", "tcg", "-S", "-qmp", "stdio"]
    words += ["-smp", "2", "-m", "64"]
    for node in (0, 1):
        words += ["-object", f"memory-backend-ram,id=m{node},size=32M", "-numa", f"node,cpus={node},memdev=m{node}"]
    for props in (one for one in made if one["driver"] in kinds):
        assigned = props["driver"] == "vfio-pci"
        given = {key: value for key, value in props.items() if key not in ("host", "rng")}
        words += ["-device", json.dumps({**given, "driver": "virtio-rng-pci"} if assigned else given)]
    cards = [f"pci{number}" for number in range(8)]
    places = [{"path": f"/machine/peripheral/{card}-port", "property": "parent_bus"} for card in cards]
    asked: list[dict[str, object]] = [{"execute": "qom-get", "arguments": place} for place in places]
    said = "".join(map(json.dumps, [{"execute": "qmp_capabilities"}, *asked, {"execute": "quit"}]))
    done = subprocess.run(words, input=said, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    buses = [one["return"] for line in done.stdout.splitlines() if isinstance((one := json.loads(line)).get("return"), str)]
    assert [bus.rpartition("/")[2].partition(".")[0] for bus in buses] == ["pxb0"] * 4 + ["pxb1"] * 4, buses

"""Machines as resources: what is written for a cluster, read by its own shells and judged by its own checker."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from host_trees import make_host

from tinamou.errors import HostError, PlanError
from tinamou.facts.pci import PciDevice, PciFacts
from tinamou.fleet import cluster
from tinamou.fleet.cluster import Fencing, Machine
from tinamou.fleet.placement import Need
from tinamou.units import PciAddress

PAGE = 2 << 20
FENCES = Fencing(enabled=True, devices=True)
CIB = """<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="1">
<configuration>
<crm_config><cluster_property_set id="p">{property}</cluster_property_set></crm_config>
<nodes><node id="1" uname="h1"/><node id="2" uname="h2"/></nodes><resources>{resources}</resources><constraints/>
</configuration><status/></cib>
"""
STONITH = '<primitive id="fence" class="stonith" type="fence_dummy"/>'
MACHINES = [
    Machine(Need("db1", 2, 100 << 20, PAGE, 512, spread="db"), "/srv/a b.toml"),
    Machine(Need("db2", 2, 100 << 20, PAGE, 512, spread="db")),
    Machine(Need("web", 1, 1 << 30, devices={"10de:2330": 1}, near="15b3:1017", together="shop")),
    Machine(Need("app", 1, 1 << 30, together="shop")),
]


def need_tool(*names: str) -> None:
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"no {name} (script/setup installs it)")


@pytest.fixture
def cib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster's configuration as a file, which Pacemaker's commands take for the cluster's: it fences."""
    path = tmp_path / "cib.xml"
    path.write_text(CIB.format(property="", resources=STONITH))
    monkeypatch.setenv("CIB_file", str(path))
    return path


@pytest.mark.parametrize(
    "value, devices, missing",
    [
        ("", STONITH, ""),
        ("true", STONITH, ""),
        ("", "", "no fencing device"),
        ("false", STONITH, "stonith-enabled is false"),
        ("no", STONITH, "stonith-enabled is false"),
    ],
)
def test_the_cluster_is_asked_whether_it_fences(cib: Path, value: str, devices: str, missing: str) -> None:
    need_tool("crm_attribute", "cibadmin")
    pair = f'<nvpair id="s" name="stonith-enabled" value="{value}"/>' if value else ""
    cib.write_text(CIB.format(property=pair, resources=devices))
    said = asyncio.run(cluster.fencing()).missing
    assert missing in said
    assert bool(said) is bool(missing)


def test_without_a_cluster_nothing_is_taken_for_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match="no cluster says"):
        asyncio.run(cluster.fencing())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="no cluster says"):
        asyncio.run(cluster.fencing())


@pytest.mark.parametrize("fences", [Fencing(enabled=False, devices=True), Fencing(enabled=True, devices=False)])
def test_nothing_is_restarted_elsewhere_without_fencing(fences: Fencing) -> None:
    with pytest.raises(PlanError, match="does not fence"):
        cluster.resource_lines(MACHINES, "crm", fences)
    bound = cluster.resource_lines(MACHINES, "crm", fences, only_on="h1")
    assert [line for line in bound if "only-on" in line] == [
        f"location {one.need.name}-only-on {one.need.name} rule -inf: #uname ne h1" for one in MACHINES
    ]


def test_a_device_by_its_address_is_no_resource() -> None:
    with pytest.raises(PlanError, match="by their address"):
        cluster.resource_lines([Machine(Need("m", 1, 1, devices={"65:00.0": 1}))], "crm", FENCES)


def test_crm_takes_what_is_written(cib: Path, tmp_path: Path) -> None:
    need_tool("crm")
    (tmp_path / "lines").write_text("\n".join(cluster.resource_lines(MACHINES, "crm", FENCES, guest=True)) + "\n")
    subprocess.run(
        ["crm", "-F", "configure", "load", "update", str(tmp_path / "lines")], check=True, env=_environment(tmp_path)
    )
    _check(cib)


@pytest.mark.slow
def test_pcs_takes_what_is_written(cib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_tool("pcs")
    lines = cluster.resource_lines(MACHINES, "pcs", FENCES, guest=True)
    assert all(line.startswith("pcs ") for line in lines)
    monkeypatch.delenv("CIB_file")
    script = "".join(f"pcs -f {cib} {'--force ' * ('create' in line)}{line.removeprefix('pcs ')}\n" for line in lines)
    subprocess.run(["sh", "-e", "-c", script], check=True, env=_environment(tmp_path))
    _check(cib)


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home)}


def _check(cib: Path) -> None:
    """Everything that was meant is in the cluster's configuration."""
    text = cib.read_text()
    for name, value in (
        ("cpu", "2"),
        ("memory", "100"),
        ("pages-2M", "512"),
        ("pci-10de-2330", "1"),
        ("allow-migrate", "true"),
    ):
        assert f'name="{name}" value="{value}"' in text
    assert 'value="/srv/a b.toml"' in text
    assert text.count('provider="tinamou"') == len(MACHINES)
    assert text.count('name="OCF_CHECK_LEVEL" value="10"') == len(MACHINES)
    assert 'attribute="beside-15b3-1017"' in text
    assert text.count("<rsc_colocation ") == 2
    assert 'name="placement-strategy" value="balanced"' in text


def test_what_a_node_has() -> None:
    host = make_host(nodes=2, cores=4, memory="16G", pages0={PAGE: (100, 3)})
    card = PciDevice(PciAddress.parse("0000:65:00.0"), "10de", "2330", "0302", group=3, node=1)
    assert cluster.node_lines("h1", host, PciFacts((card,)), "crm") == [
        "node h1 attributes beside-10de-2330=1 utilization cpu=8 memory=31544 pages-2M=100 pci-10de-2330=1"
    ]
    assert cluster.node_lines("h1", host, PciFacts(), "pcs") == ["pcs node utilization h1 cpu=8 memory=31544 pages-2M=100"]


def test_the_verb(cib: Path, tmp_path: Path) -> None:
    need_tool("crm_attribute", "cibadmin")
    file = tmp_path / "m.toml"
    file.write_text('name = "m"\ncpus = 3\n')
    argv = [sys.executable, "-m", "tinamou", "cluster", "resource", "m.toml"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"primitive m ocf:tinamou:machine params name=m file={file} " in done.stdout
    assert "utilization cpu=3 memory=620" in done.stdout
    assert "CHECK_LEVEL" not in done.stdout
    asked = subprocess.run([*argv, "--guest"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "op monitor interval=60s timeout=60s OCF_CHECK_LEVEL=10 " in asked
    cib.write_text(CIB.format(property="", resources=""))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 112
    assert "no fencing device" in done.stderr
    assert done.stdout == ""

"""What cannot be had is refused by every door, by the name of its field; nothing is started, and nothing left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from typed import call
from ways import options

from tinamou import Machine
from tinamou.errors import TinamouError
from tinamou.probe.host import probe_host

REFUSED: dict[str, dict[str, Any]] = {
    "accel": {"accel": "nvmm"},
    "os": {"os": "windows-10", "arch": "aarch64"},
    "devices.vsock": {"devices": {"vsock": 7}},
    "devices.sound": {"devices": {"sound": "virtio"}, "memory": {"forkable": True}},
    "devices.serial": {"devices": {"serial": 4}},
    "display.video": {"display": {"video": "virtio-gl"}},
    "display.clipboard": {"display": {"type": "vnc", "clipboard": True}},
    "display.redirected_usb": {"display": {"redirected_usb": 1}},
    "display.looking_glass": {"display": {"looking_glass": "800x600"}, "memory": {"forkable": True}},
    "display.looking_glass_user": {"display": {"looking_glass_user": "nobody"}},
    "display.listen": {"display": {"type": "vnc", "listen": "127.0.0.1:5901"}, "memory": {"forkable": True}},
    "display.tls": {"display": {"type": "vnc", "listen": "127.0.0.1:5901", "tls": "/nosuch"}},
    "usb[0].path": {"usb": [{"type": "stick", "path": "/nosuch"}]},
    "pmem[0].path": {"pmem": [{"path": "/nosuch"}]},
    "usb[0].device": {"usb": [{"type": "host", "device": "dead:beef"}]},
    "windows.drivers": {"windows": {"drivers": "/nosuch"}},
    "cpu.hyperv": {"accel": "tcg", "cpu": {"hyperv": "time"}},
    "replicate.to": {"replicate": {"to": "elsewhere", "every": "5m"}},
    "cpu.near": {"cpu": {"pin": "auto", "near": "nosuch"}},
    "cpu.strict": {"cpu": {"count": (os.cpu_count() or 1) + 1, "pin": "auto", "strict": True}},
    "cpu.nodes": {"cpu": {"count": 2, "nodes": 2}, "memory": {"forkable": True}},
    "memory.overcommit": {"memory": {"size": "900000G"}},
    "memory.floor": {"memory": {"floor": "64M"}, "devices": {"balloon": False}},
    "limits.memory": {"limits": {"memory": "64M"}},
    "limits.pids": {"limits": {"pids": 16}},
    "boot.secure": {"boot": {"secure": True}},
    "boot.secure_keys": {"boot": {"secure_keys": "/nosuch"}},
    "boot.menu": {"boot": {"menu": True}},
    "boot.order": {"boot": {"order": "disk0"}},
    "boot.kernel": {"boot": {"kernel": "/nosuch"}},
    "disk[0].path": {"disk": [{"path": "/nosuch.iso", "interface": "cdrom"}]},
    "net[0].network": {"net": [{"network": "lab"}]},
    "net[0].queues": {"net": [{"type": "user", "queues": 4}]},
    "share[0].path": {"share": [{"path": "/nosuch"}]},
    "pci": {"pci": [{"device": "ff:1f.7", "alone": True, "rom": False, "vlan": 7, "trust": True, "spoof_check": False}]},
    "pci[0].rom_file": {"pci": [{"device": "ff:1f.7", "rom_file": "/nosuch", "reset": "flr"}]},
    "devices.iommufd": {"devices": {"iommufd": "on"}},
    "confidential.type": {"confidential": {"type": "tdx"}},
    "confidential.debug": {"confidential": {"debug": True}},
    "confidential.host_data": {"confidential": {"host_data": "00ff"}},
    "confidential.dh_cert": {"confidential": {"dh_cert": "AAAA"}},
    "confidential.session": {"confidential": {"type": "sev", "session": "AAAA"}},
    "confidential.id_block": {"confidential": {"id_block": "AAAA"}},
    "security.apparmor": {"security": {"apparmor": "require"}},
    "security.selinux": {"security": {"selinux": "require"}},
    "security.sched_core": {"security": {"sched_core": "require"}},
    "seed.timezone": {"seed": {"timezone": "Europe/Berlin"}},
}
"""A field, and a description that no host can give a machine, or that this one cannot."""

WARM: dict[str, dict[str, Any]] = {
    "cpu.nodes": {"cpu": {"count": 2, "nodes": 2}},
    "cpu.pin": {"cpu": {"pin": "auto"}},
    "memory.hugepages": {"memory": {"hugepages": "2M"}},
    "memory.floor": {"memory": {"floor": "64M"}},
    "display.looking_glass": {"display": {"looking_glass": "800x600"}},
    "display.listen": {"display": {"type": "vnc", "listen": "127.0.0.1:5901"}},
    "net": {"net": [{"type": "passt"}]},
    "net.network": {"net": [{"type": "bridge", "network": "lab"}]},
    "net.socket": {"net": [{"type": "stream", "socket": "/nosuch"}]},
    "net[0].mac": {"net": [{"type": "user", "mac": "52:54:00:d0:0d:01"}]},
}
"""What the copy of a booted machine would lack."""


@pytest.fixture(autouse=True)
def hosts_without(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host that has an IOMMU, or TDX, refuses these for another reason, or not at all."""
    if any(Path("/sys/kernel/iommu_groups").glob("*")):
        monkeypatch.setitem(REFUSED, "pci", {"pci": [{"device": "ff:1f.7"}]})
    if probe_host().core_scheduling:
        monkeypatch.delitem(REFUSED, "security.sched_core")
    if Path("/sys/kernel/security/apparmor/.replace").exists():
        monkeypatch.delitem(REFUSED, "security.apparmor")
    if Path("/sys/fs/selinux/enforce").exists():
        monkeypatch.delitem(REFUSED, "security.selinux")
    if Path("/dev/vhost-vsock").exists():
        monkeypatch.setitem(REFUSED, "devices.vsock", {"devices": {"vsock": 7}, "memory": {"forkable": True}})
    if Path("/sys/module/kvm_intel/parameters/tdx").exists():
        monkeypatch.delitem(REFUSED, "confidential.type")
    yield


def _problems(done: Any) -> str:
    assert done.returncode > 100 and "Traceback" not in done.stderr, done.stderr
    return str(done.stderr)


@pytest.mark.timeout(900)
def test_by_options_and_by_a_file(tmp_path: Path, leftovers) -> None:
    path = tmp_path / "machine.toml"
    for field, description in REFUSED.items():
        path.write_text(tomlkit.dumps(description))
        for words in (options(description), [str(path), "-d"]):
            assert field in _problems(call("run", *words, *([] if "-d" in words else ["--", "true"]))), words
    assert leftovers.found() == []


def test_by_python(leftovers) -> None:
    for how in ({}, {"keep": True}, {"warm": True}):
        for field, description in REFUSED.items():
            with pytest.raises(TinamouError) as error:
                Machine(**json.loads(json.dumps(description)), **how).start()
            assert field in str(error.value), (how, description)
    assert leftovers.found() == []


def test_what_a_warm_copy_would_lack(leftovers) -> None:
    for field, description in WARM.items():
        with pytest.raises(TinamouError) as error:
            Machine(warm=True, **description).start()
        assert field in str(error.value), description
    assert leftovers.found() == []

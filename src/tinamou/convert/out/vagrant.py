"""A machine as the Vagrantfile of a box for vagrant-libvirt; `machine.outward` packs the box, with its disks.

Source: vagrant-libvirt's documentation, *Configuration* and *Box format*; Vagrant's, *Networking*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tinamou.convert.out.asked import Asked, Place
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.net.spec import NetSpec

__all__ = ["copies", "metadata", "write"]

_FORWARD = re.compile(r"(?:(tcp|udp):)?(?:([0-9.]+):)?(\d+):(\d+)")
_BOARDS = {"x86_64": "q35"}


def copies(place: Place, disks: Sequence[DiskSpec]) -> list[tuple[str, str]]:
    """Source and name in the box of each disk that has a file, the image first: ``box.img`` where it is alone."""
    found = [place.image] if place.image and place.format != "iso" else []
    found += [disk.path for disk in disks if disk.path and disk.interface != "cdrom"]
    return [(source, "box.img" if len(found) == 1 else f"box_{number}.img") for number, source in enumerate(found)]


def metadata(place: Place, disks: Sequence[DiskSpec]) -> str:
    """The box' metadata.json: of version 1 with one disk, else of version 2."""
    files = copies(place, disks)
    if len(files) == 1:
        gigabytes = -(-place.sizes.get(files[0][0], 0) >> 30) or 1
        return json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": gigabytes})
    return json.dumps({"provider": "libvirt", "format": "qcow2", "disks": [{"path": file} for _, file in files]})


def _quoted(text: object) -> str:
    """A string of Ruby's."""
    return '"' + re.sub(r'["\\#]', r"\\\g<0>", str(text)) + '"'


def write(asked: Asked, place: Place) -> str:
    """The text; notes of what Vagrant has otherwise are added to ``asked``."""
    spec = asked.spec
    asked.take(
        "image", "accel", "memory.size", "cpu.count", "devices.rng", "devices.balloon", "devices.panic", "memory.merge"
    )
    around: list[str] = []
    lines = [f"domain.memory = {spec.memory.size.mib}", f"domain.cpus = {spec.cpu.count}"]
    if spec.name:
        around.append(f"config.vm.hostname = {_quoted(spec.name)}")
        asked.take("name")
    arch = spec.arch or place.arch
    asked.take("arch")
    lines += [f"domain.machine_arch = {_quoted(arch)}", f"domain.driver = {_quoted('kvm' if place.kvm else 'qemu')}"]
    if board := _BOARDS.get(arch):
        lines.append(f"domain.machine_type = {_quoted(board)}")
    _cpu(asked, lines)
    _devices(asked, lines)
    for number, disk in enumerate(spec.disk):
        _disk(asked, lines, disk, f"disk[{number}]")
    for number, net in enumerate(spec.net):
        _net(asked, around, lines, net, f"net[{number}]")
    for number, share in enumerate(spec.share):
        options = ', type: "virtiofs"' + (", readonly: true" if share.fixed else "")
        around.append(f"config.vm.synced_folder {_quoted(share.host)}, {_quoted(share.guest)}{options}")
        asked.take(*(f"share[{number}].{key}" for key in ("path", "to", "readonly")))
    asked.windows("which drivers it has is the box' to know")
    around += ["config.vm.provider :libvirt do |domain|", *(f"  {one}" for one in lines), "end"]
    return "\n".join(['Vagrant.configure("2") do |config|', *(f"  {one}" for one in around), "end", ""])


def _cpu(asked: Asked, lines: list[str]) -> None:
    cpu = asked.spec.cpu
    if cpu.sockets or cpu.cores or cpu.threads:
        parts = {key: getattr(cpu, key) or 1 for key in ("sockets", "cores", "threads")}
        lines.append("domain.cputopology " + ", ".join(f":{key} => {_quoted(value)}" for key, value in parts.items()))
        asked.take("cpu.sockets", "cpu.cores", "cpu.threads")
    name, *features = cpu.model.split(",")
    if name in ("host", "max"):
        lines.append('domain.cpu_mode = "host-passthrough"')
    elif name != "auto":
        lines += ['domain.cpu_mode = "custom"', f"domain.cpu_model = {_quoted(name)}"]
    for one in features:
        if one[:1] in "+-":
            policy = "require" if one[0] == "+" else "disable"
            lines.append(f"domain.cpu_feature :name => {_quoted(one[1:])}, :policy => {_quoted(policy)}")
    asked.take("cpu.model")
    if rest := [one for one in features if one[:1] not in "+-"]:
        asked.note("lost", "cpu.model", ",".join(rest), "libvirt's features have no value")


def _devices(asked: Asked, lines: list[str]) -> None:
    spec = asked.spec
    if spec.boot.requested == "uefi":
        fix = 'domain.loader = "/usr/share/OVMF/OVMF_CODE_4M.fd" and domain.nvram, of the host it runs on'
        asked.note("check", "boot.firmware", "uefi", "Vagrant names the firmware's files", fix)
    asked.take("boot.firmware")
    kind = spec.display.type
    lines.append(f"domain.graphics_type = {_quoted(kind)}")
    asked.take("display.type")
    if spec.tpm.enabled:
        lines += ['domain.tpm_model = "tpm-crb"', 'domain.tpm_type = "emulator"', 'domain.tpm_version = "2.0"']
        asked.take("tpm.enabled")
    if spec.devices.watchdog != "none":
        lines.append(f'domain.watchdog :model => "i6300esb", :action => {_quoted(spec.devices.watchdog)}')
        asked.take("devices.watchdog")
    if spec.memory.hugepages != "off":
        lines.append("domain.memorybacking :hugepages")
        asked.take("memory.hugepages")
    if spec.clock.base == "localtime":
        lines.append('domain.clock_offset = "localtime"')
        asked.take("clock.base")


def _disk(asked: Asked, lines: list[str], disk: DiskSpec, path: str) -> None:
    if disk.interface == "cdrom":
        lines.append(f"domain.storage :file, :device => :cdrom, :path => {_quoted(disk.path)}")
    elif not disk.path:
        lines.append(f'domain.storage :file, :size => "{int(disk.size or 0) >> 20}M", :type => "qcow2"')
    elif disk.interface not in ("auto", "virtio"):
        asked.note("changed", f"{path}.interface", disk.interface, "the disks of a box are virtio disks")
    asked.take(*(f"{path}.{key}" for key in ("path", "size", "format", "interface")))


def _net(asked: Asked, around: list[str], lines: list[str], net: NetSpec, path: str) -> None:
    """The first card of a box is on Vagrant's own network, where ports lead in."""
    for one in net.forward:
        if match := _FORWARD.fullmatch(one):
            ends = f"guest: {match[4]}, host: {match[3]}, host_ip: {_quoted(match[2] or '127.0.0.1')}"
            around.append(f'config.vm.network "forwarded_port", {ends}, protocol: {_quoted(match[1] or "tcp")}')
        else:
            asked.note("lost", f"{path}.forward", one, "it is no port in a form Vagrant has", "config.vm.network")
    asked.take(f"{path}.forward")
    if net.bridge:
        ends = f':dev => {_quoted(net.bridge)}, :mode => "bridge", :type => "bridge"'
        around.append(f"config.vm.network :public_network, {ends}")
        asked.take(f"{path}.bridge", f"{path}.type")
    elif net.type in ("auto", "user", "passt"):
        asked.take(f"{path}.type")
    if net.mac:
        lines.append(f"domain.management_network_mac = {_quoted(net.mac)}")
        asked.take(f"{path}.mac")
    if net.model != "auto":
        model = f"domain.nic_model_type = {_quoted(net.model)}"
        lines += [model] if model not in lines else []
        asked.take(f"{path}.model")

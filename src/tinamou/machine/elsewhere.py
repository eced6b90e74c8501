"""The plan of a machine on another host, from a recording of it: what is not recorded is this host's, and said to be."""

from __future__ import annotations

from pathlib import Path

from tinamou import late
from tinamou.blueprint import Note, Plan, Why
from tinamou.facts import AccelFacts, Facts, NetFacts, Permits, Place, Trial
from tinamou.facts.host import EVERYBODY, HostFacts
from tinamou.facts.net import Link
from tinamou.machine import named
from tinamou.machine.gather import gather, resolve_image
from tinamou.machine.recording import opened
from tinamou.planner import plan
from tinamou.probe.host import probe_host
from tinamou.probe.pci import probe_pci
from tinamou.probe.usb import probe_usb
from tinamou.spec import MachineSpec
from tinamou.state import uids
from tinamou.system.rooted import Rooted

__all__ = ["plan_for", "recorded"]

_KVM = "/dev/kvm"


def plan_for(spec: MachineSpec, recording: Path) -> Plan:
    """The plan for a request on a recorded host, as root there. Raises PlanError, ProbeError, ImageError."""
    spec = named.absolute(spec)
    image = resolve_image(spec, build=False)
    name = spec.name or Path(spec.image).stem.partition(":")[0]
    place = Place(name, f"/var/lib/tinamou/machines/{name}", uids.FIRST, 2222)
    here = gather(late.replace(spec, pci=()), image, place)
    with opened(recording) as root:
        facts = recorded(here, root)
    made = plan(spec, facts)
    why = Why("plan --host", f"{recording} records neither a binary nor what runs")
    said = f"planned for the host of {recording}: QEMU, firmware, image and walls are this host's, nothing is leased there"
    return late.replace(made, notes=(*made.notes, Note("warning", said, why)))


def recorded(here: Facts, root: str) -> Facts:
    """What is known here, with the host, devices and interfaces of a recorded one, where tinamou runs as root."""
    files = Rooted(root)
    host = _as_root(probe_host(root), here.host)
    native = host.arch == here.image.arch and _KVM in host.devices
    kvm = Trial("kvm", native, 0.0, "not tried", "" if native else f"it has no {_KVM} for {here.image.arch}")
    tcg = Trial("tcg", True, 0.0, "not tried")
    names = files.names("/sys/class/net")
    links = {name: Link(name, "bridge" if files.exists(f"/sys/class/net/{name}/bridge") else "") for name in names}
    return late.replace(
        here,
        host=host,
        accel=AccelFacts(here.image.arch, (kvm, tcg)),
        net=NetFacts(links=links),
        permits=Permits(),
        pci=late.replace(probe_pci(files, {}), locked=None),
        usb=probe_usb(files, {}),
    )


def _as_root(host: HostFacts, here: HostFacts) -> HostFacts:
    """A recorded host as its root sees it; a recording without programs and devices has those of this host, and KVM."""
    devices = host.devices or here.devices | {_KVM}
    tools = host.tools or here.tools
    return late.replace(host, is_root=True, devices=devices, tools=tools, device_groups=dict.fromkeys(devices, EVERYBODY))

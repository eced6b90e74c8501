"""Reader of Incus' and LXD's virtual machines: ``incus config show NAME --expanded``, or the index.yaml of a backup.

Source: Incus 6.0's documentation, *Instance options*, *Type: disk*, *Type: nic*, *Units for storage and network limits*.
"""

from __future__ import annotations

import re

from tinamou.convert import foreign, nets
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, of_yaml
from tinamou.convert.values import cpu_set, mebibytes, switch, whole, words
from tinamou.errors import SpecError
from tinamou.parts.net.forwards import forwards_of

__all__ = ["read"]

_ARCHES = {"x86_64": "x86_64", "aarch64": "aarch64", "riscv64": "riscv64"}
_RULES: Rules = (
    (r"(config\.)?(volatile|image)\..* .*volatile\..*", "done", "what Incus notes about the machine", ""),
    (
        r"(ephemeral|stateful|status(_code)?|created_at|last_used_at|location|project|description|restore|name|type)",
        "done",
        "what Incus notes about the machine",
        "",
    ),
    (
        r"profiles\[.*|profiles",
        "check",
        "what a profile adds is in the file with --expanded alone",
        "incus config show NAME --expanded",
    ),
    (r"(expanded_)?config\.boot\..*", "done", "a machine starts with the host where that is asked", "tinamou autostart"),
    (r"(expanded_)?config\.(snapshots|migration|cluster|agent|ubuntu_pro)\..*", "done", "how Incus keeps the machine", ""),
    (r"(expanded_)?config\.limits\..*", "lost", "what a machine may use is set in [limits]", "set limits, cpu.pin"),
    (r"(expanded_)?config\.user\..*", "lost", "a user's own key reaches the guest through Incus' agent alone", "[seed]"),
    (r"(expanded_)?config\.(security|raw)\..*", "lost", "no such setting is known here", "see docs/reference/spec.md"),
    (
        r".*devices\.[^.]+\.limits\..*",
        "lost",
        "what a device may use is another setting here",
        "iops and bandwidth in [[disk]]; rate_in and rate_out in [[net]]",
    ),
    (
        r"(config\.)?(backend|pool|optimized|optimized_header|snapshots?|volume.*)(\..*|\[.*)?",
        "done",
        "how the backup was made",
        "",
    ),
)


def read(text: str) -> Draft:
    """The machine. Raises SpecError for a container."""
    found = of_yaml(text, "the Incus instance")
    root = found[0] if found else Node({})
    one = next((inner for key in ("instance", "container") if (inner := root.at(f"config.{key}"))), root)
    kind = one.text_at("type")
    if kind == "container":
        raise SpecError(
            "the instance is a container", why="it has no kernel of its own", fix="incus copy makes no machine of it"
        )
    draft = Draft("an Incus instance", confined=True)
    foreign.named(draft, "name", name := one.text_at("name"))
    one.put(draft, "architecture", "arch", _ARCHES.get)
    config = one.at("expanded_config") or one.at("config")
    devices = one.at("expanded_devices") or one.at("devices")
    if config.place.endswith("expanded_config"):
        for other in (one.at("config"), one.at("devices"), one.at("profiles")):
            if other:
                draft.done(other.place, other.shown(), "what is expanded has it")
    _size(draft, config)
    _security(draft, config)
    _seed(draft, config)
    if line := config.key("raw.qemu").text:
        foreign.passed_on(draft, "raw.qemu", words(line), line)
    draft.nets = []
    for key, device in devices.pairs():
        _device(draft, key, device, config, name)
    report(draft, root.unread(), _RULES)
    for other in found[1:]:
        draft.lost("document", other.shown(), "another document in the same file", "convert it on its own")
    return draft


def _size(draft: Draft, config: Node) -> None:
    cpus = config.key("limits.cpu").text
    if (number := whole(cpus)) is not None:
        draft.put("cpu.count", max(1, number))
    elif pinned := cpu_set(cpus):
        draft.put("cpu.count", len(pinned))
        draft.put("cpu.pin", str(pinned))
        draft.changed("limits.cpu", cpus, "that many CPUs, each on one of these of the host", "leave cpu.pin out")
    elif cpus:
        draft.check("limits.cpu", cpus, "what it means is not known here", "set cpus")
    memory = config.key("limits.memory")
    if not memory.text:
        draft.put("memory.size", "1G")
        draft.changed("limits.memory", "", "Incus gives a machine 1 GiB unless a profile says otherwise", "set memory")
    elif memory.text.endswith("%"):
        draft.check("limits.memory", memory.text, "a share of a host's memory is no size", "set memory")
    else:
        memory.give(draft, "memory.size", mebibytes)
    if switch(huge := config.key("limits.memory.hugepages").text):
        draft.put("memory.hugepages", "auto")
    elif huge:
        draft.done("limits.memory.hugepages", huge, "huge pages are not taken unless asked for")


def _security(draft: Draft, config: Node) -> None:
    secure, legacy = config.key("security.secureboot").text, config.key("security.csm").text
    if switch(legacy):
        draft.put("boot.firmware", "bios")
        draft.done("security.csm", legacy, f"SeaBIOS is there; secureboot={secure or 'not said'} has no meaning for it")
    else:
        foreign.uefi(draft, "security.secureboot", secure=secure != "false", files=f"secureboot={secure} csm={legacy}")
    if switch(sev := config.key("security.sev").text):
        es = config.key("security.sev.policy.es").text
        foreign.encrypted(draft, "security.sev", f"sev es={es}", "sev-es" if switch(es) else "sev", bit=False)
    elif sev:
        draft.done("security.sev", sev, "memory is not encrypted unless asked for")


def _seed(draft: Draft, config: Node) -> None:
    for key in ("cloud-init.user-data", "user.user-data"):
        if data := config.key(key).text:
            draft.put("seed.user_data", data)
            draft.done(key, "", "cloud-init gets it: seed.user_data")
            break
    for key in ("cloud-init.vendor-data", "user.vendor-data", "cloud-init.network-config", "user.network-config"):
        if data := config.key(key).text:
            draft.lost(key, data, "the machine has one document, and its network by DHCP", "set seed.user_data, address")


def _device(draft: Draft, key: str, device: Node, config: Node, name: str) -> None:
    kind, where = device.text_at("type"), f"device {key}"
    if kind == "disk":
        _disk(draft, where, device, name)
    elif kind == "nic":
        _card(draft, where, device, config.key(f"volatile.{key}.hwaddr").text)
    elif kind == "tpm":
        foreign.tpm(draft, where, device.shown())
    elif kind == "gpu" and (address := device.text_at("pci")):
        whole_address = address if address.count(":") == 2 else f"0000:{address}"
        foreign.passed_through(draft, where, f"{device.text_at('gputype')} {address}", whole_address)
    elif kind == "pci" and (address := device.text_at("address")):
        foreign.passed_through(draft, where, address, address if address.count(":") == 2 else f"0000:{address}")
    elif kind == "proxy":
        _proxy(draft, where, device)
    elif kind == "none":
        draft.done(where, device.shown(), "it takes a profile's device away")
    else:
        draft.lost(where, device.shown(), "no such device is known here", "see docs/reference/spec.md")


def _disk(draft: Draft, where: str, device: Node, name: str) -> None:
    source, path, pool = device.text_at("source"), device.text_at("path"), device.text_at("pool")
    bus, cache, order = device.key("io.bus").text, device.key("io.cache").text, device.key("boot.priority").text
    readonly, amount = device.text_at("readonly"), device.text_at("size")
    if path and path != "/":
        if source.startswith("/") and not pool:
            foreign.folder(draft, where, f"{source} at {path} readonly={readonly}")
        else:
            draft.lost(where, f"{source or 'a volume'} of {pool} at {path}", "a volume of Incus' is not here", "set share")
        return
    if path == "/":
        source = f"{name or 'root'}.img"
        reason = f"the disk is in Incus' pool {pool}: the machine looks for {source} beside the description"
        draft.check(where, f"size={amount}", reason, "incus export NAME; virtual-machine.img or root.img is in it")
    elif pool:
        draft.check(where, f"volume {source} of {pool}", "a volume of Incus' is not here", "incus storage volume export")
    disk = Disk(where, source, cdrom=source.endswith(".iso") or source in ("agent:config", "cloud-init:config"))
    if disk.cdrom and ":" in source:
        draft.done(where, source, "the guest's agent is configured by cloud-init")
        return
    disk.order = -number if (number := whole(order)) is not None else 0 if path == "/" else None
    if bus == "nvme":
        disk.options["interface"] = "nvme"
    elif bus:
        draft.changed(where, f"io.bus={bus}", "it becomes a virtio disk", "set interface")
    if order:
        draft.done(where, f"boot.priority={order}", "the machine's image is what is started from", "set boot.order")
    if cache:
        disk.options["cache"] = cache
    if switch(readonly):
        disk.options["readonly"] = True
    draft.disks.append(disk)


def _card(draft: Draft, where: str, device: Node, noted: str) -> None:
    network, parent, kind = device.text_at("network"), device.text_at("parent"), device.text_at("nictype")
    draft.done(where, f"name={device.text_at('name')} {network} {kind}", "the guest names its interfaces itself")
    net = draft.net()
    if kind == "bridged" and parent:
        net |= {"type": "bridge", "bridge": parent}
    elif kind == "macvlan" and parent:
        net |= {"type": "macvtap", "interface": parent}
    elif network:
        draft.changed(where, network, "on a network of its own with a way out", 'type = "bridge" and bridge = … joins one')
    else:
        draft.lost(where, f"{kind} {parent}", "no network of that kind is here; the card is on an ordinary one", "set type")
    if mac := device.text_at("hwaddr") or noted:
        nets.set_mac(draft, net, where, mac)
    if mtu := whole(device.text_at("mtu")):
        net["mtu"] = mtu


_PORTS = re.compile(r"(tcp|udp):(.*):([0-9-]+) \1:.*:([0-9-]+)")


def _proxy(draft: Draft, where: str, device: Node) -> None:
    listen, connect, nat = (device.text_at(key) for key in ("listen", "connect", "nat"))
    said = f"{listen} to {connect}"
    match = _PORTS.fullmatch(f"{listen} {connect}")
    kind, address, port, to = match.groups() if match else ("",) * 4
    try:
        if not draft.nets or not forwards_of(f"{kind}:{address}:{port}:{to}"):
            raise ValueError
    except ValueError:
        draft.lost(where, said, "it is no port that leads into the guest", "set forward in [[net]]")
        return
    if address in ("0.0.0.0", "[::]"):  # noqa: S104 (what it is told of)
        address = nets.narrowed(draft, where, said, f"{kind}:{address}:{port}:{to}", "Incus")
    draft.nets[0].setdefault("forward", []).append(f"{kind}:{address}:{port}:{to}")
    draft.done(where, f"{said}, nat: {nat or 'not set'}", "the port is forwarded")

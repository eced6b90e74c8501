"""A machine as a KubeVirt VirtualMachine (``kubectl apply -f``).

Source: KubeVirt's API reference (kubevirt.io/v1) and its user guide.
"""

from __future__ import annotations

import math
from typing import Any

from tinamou.convert.out.asked import Asked, Place
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.hyperv import complete
from tinamou.parts.net.spec import NetSpec
from tinamou.parts.windows import clock_base

__all__ = ["write"]

_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
_CACHES = ("none", "writeback", "writethrough")
_MODELS = ("virtio", "e1000", "e1000e", "rtl8139")
_HYPERV = {
    "relaxed": "relaxed", "vapic": "vapic", "spinlocks": "spinlocks", "vpindex": "vpindex", "runtime": "runtime",
    "synic": "synic", "stimer": "synictimer", "reset": "reset", "frequencies": "frequencies", "ipi": "ipi",
    "reenlightenment": "reenlightenment", "tlbflush": "tlbflush", "evmcs": "evmcs",
}  # fmt: skip


def write(asked: Asked, place: Place) -> str:
    """The object in YAML; notes of what KubeVirt has otherwise are added to ``asked``."""
    import yaml

    spec, arch = asked.spec, asked.spec.arch or place.arch
    asked.take("name", "arch", "accel", "image")
    name = spec.name or "machine"
    inner: dict[str, Any] = {}
    if arch in _ARCHES:
        inner["architecture"] = _ARCHES[arch]
    else:
        asked.note("lost", "arch", arch, "KubeVirt runs no such machine")
    volumes: list[dict[str, Any]] = []
    templates: list[dict[str, Any]] = []
    domain: dict[str, Any] = {"cpu": _cpu(asked), "memory": _memory(asked), "devices": _devices(asked)}
    domain |= _firmware(asked, place)
    _clock(asked, domain)
    domain["devices"]["disks"] = _disks(asked, place, name, volumes, templates)
    domain["devices"]["interfaces"], networks = _nets(asked)
    inner |= {"domain": domain, "networks": networks, "volumes": volumes}
    if spec.seed.hostname:
        inner["hostname"] = spec.seed.hostname
        asked.take("seed.hostname")
    asked.windows("the board's sleep states are left on: a Windows that sleeps does not come back")
    body: dict[str, Any] = {"runStrategy": "Always", "template": {"spec": inner}}
    if templates:
        body["dataVolumeTemplates"] = templates
    found = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name}, "spec": body}
    return str(yaml.safe_dump(found, sort_keys=False, width=200))


def _cpu(asked: Asked) -> dict[str, Any]:
    cpu = asked.spec.cpu
    parts = {key: getattr(cpu, key) or 1 for key in ("sockets", "cores", "threads")}
    if math.prod(parts.values()) != cpu.count:
        missing = next((key for key in ("cores", "sockets", "threads") if not getattr(cpu, key)), "cores")
        parts[missing] = max(1, cpu.count // max(1, math.prod(parts.values()) // parts[missing]))
    found: dict[str, Any] = {key: value for key, value in parts.items() if value > 1 or key == "cores"}
    name, *features = cpu.model.split(",")
    if name not in ("auto", ""):
        found["model"] = {"host": "host-passthrough", "max": "host-passthrough"}.get(name, name)
    known = [one for one in features if one[:1] in "+-"]
    if known:
        found["features"] = [{"name": one[1:], "policy": "require" if one[0] == "+" else "disable"} for one in known]
    asked.take("cpu.count", "cpu.sockets", "cpu.cores", "cpu.threads", "cpu.model")
    if rest := [one for one in features if one not in known]:
        asked.note("lost", "cpu.model", ",".join(rest), "KubeVirt's features have no value")
    if cpu.pin == "auto":
        found["dedicatedCpuPlacement"] = True
        asked.take("cpu.pin")
    return found


def _memory(asked: Asked) -> dict[str, Any]:
    memory = asked.spec.memory
    found: dict[str, Any] = {"guest": f"{memory.size.mib}Mi"}
    if memory.hugepages != "off":
        found["hugepages"] = {"pageSize": {"1G": "1Gi"}.get(memory.hugepages, "2Mi")}
    asked.take("memory.size", "memory.hugepages")
    return found


def _firmware(asked: Asked, place: Place) -> dict[str, Any]:
    boot, found, features = asked.spec.boot, dict[str, Any](), dict[str, Any]()
    if boot.requested == "uefi":
        found["firmware"] = {"bootloader": {"efi": {"secureBoot": boot.checked, "persistent": True}}}
        features |= {"smm": {"enabled": True}} if boot.checked else {}
    asked.take("boot.firmware", "boot.secure")
    for key, value in place.started(boot).items():
        if value:
            fix = "build an image with them, and firmware.kernelBoot"
            asked.note("lost", f"boot.{key}", value, "KubeVirt takes a kernel from an image of a registry alone", fix)
    said = complete(asked.spec.cpu.hyperv)
    written: dict[str, Any] = {_HYPERV[key]: {} for key in said if key in _HYPERV}
    if "spinlocks" in written:
        written["spinlocks"] = {"spinlocks": int(said["spinlocks"], 0)}
    if written:
        features["hyperv"] = written
    if said or asked.spec.cpu.hyperv == "off":
        asked.take("cpu.hyperv")
    if left := ",".join(key for key in said if key not in _HYPERV and key != "time"):
        asked.note("lost", "cpu.hyperv", left, "KubeVirt has no such enlightenments")
    return found | ({"features": features} if features else {})


def _clock(asked: Asked, domain: dict[str, Any]) -> None:
    clock, said = asked.spec.clock, "hyperv" in domain.get("features", {}) and "time" in complete(asked.spec.cpu.hyperv)
    base = clock_base(asked.spec)[0] if clock.base == "auto" else clock.base
    timer = {"timer": {"hyperv": {"present": True}}} if said else {}
    if clock.offset:
        domain["clock"] = {"utc": {"offsetSeconds": clock.offset}} | timer
    elif clock.base == "utc" or timer:
        domain["clock"] = {"utc": {}} | timer
    asked.take("clock.offset")
    if base == "utc":
        asked.take("clock.base")
    else:
        asked.note("lost", "clock.base", base, "the clock is UTC, or that of a zone by its name", "clock.timezone")


def _devices(asked: Asked) -> dict[str, Any]:
    spec, found = asked.spec, dict[str, Any]()
    if spec.display.type == "none":
        found["autoattachGraphicsDevice"] = False
    elif spec.display.type == "spice":
        asked.note("changed", "display.type", "spice", "the screen is reached by virtctl vnc")
    if spec.devices.rng:
        found["rng"] = {}
    if not spec.devices.balloon:
        found["autoattachMemBalloon"] = False
    if all(net.type == "none" for net in spec.net):
        found["autoattachPodInterface"] = False
    if spec.tpm.enabled:
        found["tpm"] = {"persistent": True}
    if (action := spec.devices.watchdog) in ("reset", "poweroff", "shutdown"):
        found["watchdog"] = {"name": "watchdog", "i6300esb": {"action": action}}
        asked.take("devices.watchdog")
    tablets = [number for number, one in enumerate(spec.usb) if one.type == "tablet"]
    if tablets:
        found["inputs"] = [{"name": "tablet", "type": "tablet", "bus": "usb"}]
        asked.take(*(f"usb[{number}].type" for number in tablets))
    asked.take("display.type", "devices.rng", "devices.balloon", "tpm.enabled")
    return found


def _disks(
    asked: Asked, place: Place, name: str, volumes: list[dict[str, Any]], templates: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    first = asked.first(place, copied=True)
    for path, disk in [*([("", first)] if first else []), *((f"disk[{at}]", one) for at, one in enumerate(asked.spec.disk))]:
        own = f"disk{len(found)}"
        found.append(_disk(asked, disk, path, own, boots=not found))
        if disk.path:
            volumes.append({"name": own, "persistentVolumeClaim": {"claimName": f"{name}-{own}"}})
            fix = f"virtctl image-upload pvc {name}-{own} --size=… --image-path={disk.path}"
            asked.note(
                "check", f"{path}.path" if path else "image", disk.path, "its content is a volume of the cluster", fix
            )
        else:
            volumes.append({"name": own, "dataVolume": {"name": f"{name}-{own}"}})
            storage = {"resources": {"requests": {"storage": str(int(disk.size or 0))}}}
            templates.append({"metadata": {"name": f"{name}-{own}"}, "spec": {"storage": storage, "source": {"blank": {}}}})
            asked.take(f"{path}.size")
    if data := asked.spec.seed.user_data:
        found.append({"name": "seed", "disk": {"bus": "virtio"}})
        volumes.append({"name": "seed", "cloudInitNoCloud": {"userData": data}})
        asked.take("seed.user_data")
    return found


def _disk(asked: Asked, disk: DiskSpec, path: str, name: str, *, boots: bool) -> dict[str, Any]:
    kind = "cdrom" if disk.interface == "cdrom" else "disk"
    bus = {"auto": "virtio", "cdrom": "sata"}.get(disk.interface, disk.interface)
    if bus == "nvme":
        bus = "virtio"
        asked.note("changed", f"{path}.interface", "nvme", "KubeVirt emulates no NVMe controller: virtio")
    inner: dict[str, Any] = {"bus": bus} | ({"readonly": True} if disk.readonly and kind == "disk" else {})
    found: dict[str, Any] = {"name": name, kind: inner} | ({"bootOrder": 1} if boots else {})
    if disk.cache != "writeback" and disk.cache in _CACHES:
        found["cache"] = disk.cache
    if disk.aio in ("native", "threads"):
        found["io"] = disk.aio
        asked.take(f"{path}.aio")
    if disk.iothread:
        found["dedicatedIOThread"] = True
    if disk.cache in _CACHES:
        asked.take(f"{path}.cache")
    asked.take(*(f"{path}.{key}" for key in ("interface", "readonly", "iothread", "format")))
    return found


def _nets(asked: Asked) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    cards: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    for number, net in enumerate(asked.spec.net):
        if net.type == "none":
            asked.take(f"net[{number}].type")
            continue
        card, network = _net(asked, net, f"net[{number}]", f"net{number}", pod=not any("pod" in one for one in networks))
        cards.append(card)
        networks.append(network)
    return cards, networks


def _net(asked: Asked, net: NetSpec, path: str, name: str, *, pod: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    inside = net.type in ("auto", "user", "passt") and pod
    card: dict[str, Any] = {"name": name, **({"masquerade": {}} if inside else {"bridge": {}})}
    if net.model in _MODELS:
        card["model"] = net.model
    if net.mac:
        card["macAddress"] = str(net.mac)
    asked.take(f"{path}.mac", f"{path}.model")
    if net.forward:
        reason = "a port is led in by a Service of the cluster"
        asked.note("lost", f"{path}.forward", ", ".join(net.forward), reason, "virtctl expose vm NAME --name … --port …")
    if inside:
        asked.take(f"{path}.type")
        return card, {"name": name, "pod": {}}
    network = net.bridge or net.network or net.interface or name
    fix = "kubectl apply a NetworkAttachmentDefinition of that name"
    asked.note("check", f"{path}.type", f"{net.type} {network}", "a network of Multus must be there in the cluster", fix)
    asked.take(f"{path}.bridge", f"{path}.network", f"{path}.interface")
    return card, {"name": name, "multus": {"networkName": network}}

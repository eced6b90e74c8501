"""Reader of KubeVirt's VirtualMachine objects, in YAML or JSON.

Source: KubeVirt's API reference (kubevirt.io/v1) and its user guide; Kubernetes' documentation, *Quantity*.
"""

from __future__ import annotations

import base64
import binascii
import re

from tinamou.convert import foreign, nets
from tinamou.convert.account import HIDDEN, Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, of_yaml
from tinamou.convert.values import whole
from tinamou.errors import SpecError
from tinamou.units import Size

__all__ = ["MACHINES", "read"]

MACHINES = ("VirtualMachine", "VirtualMachineInstance")
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)(Ki|Mi|Gi|Ti|k|M|G|T|)")
_UNITS = {"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "k": 3, "M": 6, "G": 9, "T": 12}
_ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}
_RULES: Rules = (
    (r".*metadata\..* apiVersion status\..*", "done", "what the cluster notes about the machine", ""),
    (r"spec\.(running|runStrategy)", "done", "a machine runs when it is started", "tinamou autostart"),
    (
        r".*\.(nodeSelector|affinity|tolerations|terminationGracePeriodSeconds|evictionStrategy|priorityClassName"
        r"|schedulerName|topologySpreadConstraints|livenessProbe|readinessProbe|startStrategy|dns(Policy|Config))(\..*|\[.*)?",
        "done",
        "where and when a cluster runs the machine, not what it is",
        "",
    ),
    (
        r"spec\.(dataVolumeTemplates|updateVolumesStrategy)(\[.*|\..*)?",
        "check",
        "the cluster fills a volume from this",
        "fetch it, and name the file in image or [[disk]]",
    ),
    (
        r"spec\.(instancetype|preference)\..*",
        "lost",
        "what the named type has is in the cluster alone",
        "kubectl get virtualmachineinstancetype NAME -o yaml; set cpus and memory",
    ),
    (
        r".*domain\.(features\.(acpi|apic|smm|pvspinlock).*|ioThreadsPolicy|machine\.type|chassis.*)",
        "done",
        "the board has what the machine needs",
        "",
    ),
    (r".*domain\.(resources|devices|machine|cpu|memory|features|firmware)", "done", "it says nothing", ""),
    (
        r".*domain\.firmware\.(uuid|serial)",
        "changed",
        "the guest's identity is the machine's own",
        "smbios.uuid, smbios.serial",
    ),
    (r".*\.accessCredentials\[.*", "lost", "a secret is in the cluster alone", "seed.ssh_keys, seed.password_hash"),
    (r".*domain\.resources\..*", "changed", "a share of the host is not set here", "set limits"),
    (r".*domain\.clock\.timer.*", "changed", "timers are those QEMU has for the machine", "keep it with qemu_args"),
    (
        r".*devices\.(rng|autoattach.*|blockMultiQueue|networkInterfaceMultiqueue|inputs.*)(\..*)?",
        "done",
        "small devices are there where the machine needs them",
        "",
    ),
    (
        r".*(interfaces\[\d+\]\.(bootOrder|pciAddress|acpiIndex|tag)|disks\[\d+\]\.(disk|lun|cdrom)\.(bus|pciAddress|tray))",
        "done",
        "where a device sits is tinamou's to choose",
        "",
    ),
)


def read(text: str) -> Draft:
    """The first machine of the documents. Raises SpecError."""
    found = of_yaml(text, "the KubeVirt machine")
    listed = [inner for one in found for inner in (one.at("items").items() if one.text_at("kind") == "List" else [one])]
    machines = [one for one in listed if one.text_at("kind") in MACHINES]
    if not machines:
        raise SpecError("there is no VirtualMachine in it", fix="kubectl get vm NAME -o yaml writes one")
    machine = machines[0]
    draft = Draft("a KubeVirt machine", confined=True)
    foreign.named(draft, "metadata.name", machine.text_at("metadata.name"))
    spec = machine.at("spec.template.spec") if machine.text_at("kind") == MACHINES[0] else machine.at("spec")
    spec.put(draft, "architecture", "arch", lambda name: _ARCHES.get(name, name))
    if host := spec.text_at("hostname"):
        draft.put("seed.hostname", host)
    domain = spec.at("domain")
    _size(draft, domain)
    _firmware(draft, domain)
    _clock(draft, domain.at("clock"))
    _small(draft, domain)
    volumes = {one.text_at("name"): one for one in spec.at("volumes").items()}
    blank = {
        one.text_at("metadata.name"): one
        for one in machine.at("spec.dataVolumeTemplates").items()
        if one.at("spec.source.blank")
    }
    disks = {one.text_at("name"): one for one in domain.at("devices.disks").items()}
    mounted = {one.text_at("name") for one in domain.at("devices.filesystems").items()}
    # A volume no device names is a disk too.
    for name in [*disks, *(one for one in volumes if one not in disks and one not in mounted)]:
        _disk(draft, name, disks.get(name) or Node({}), volumes, blank)
    networks = {one.text_at("name"): one for one in spec.at("networks").items()}
    draft.nets = []
    windows = domain.has("features.hyperv")
    for one in domain.at("devices.interfaces").items():
        _card(draft, one, networks, windows=windows)
    if not draft.nets and not networks and domain.on("devices.autoattachPodInterface", default=True):
        draft.net()
        draft.done("devices.interfaces", "none", "a machine that names none is on the cluster's network")
    report(draft, machine.unread(), _RULES)
    for other in listed:
        if other is not machine:
            draft.lost(other.text_at("kind"), other.shown(), "another object in the same file", "convert it on its own")
    return draft


def quantity(text: str) -> Size | None:
    """``1.5Gi``, ``512M`` (millions), ``1024`` bytes."""
    match = _QUANTITY.fullmatch(text)
    if not match:
        return None
    power = _UNITS[match[2]]
    factor = 1 << power if match[2].endswith("i") else 10**power
    return Size(int(float(match[1]) * factor))


def _memory(text: str) -> str | None:
    found = quantity(text)
    return None if not found else str(Size(-(-found >> 20) << 20))


def _size(draft: Draft, domain: Node) -> None:
    parts = {}
    for key in ("sockets", "cores", "threads"):
        if number := domain.put(draft, f"cpu.{key}", f"cpu.{key}", whole):
            parts[key] = number
    asked = domain.text_at("resources.requests.cpu")
    count = 1
    for number in parts.values():
        count *= number
    if not parts and (number := whole(asked)):
        count = number
    elif asked:
        draft.changed("domain.resources.requests.cpu", asked, "a share of the host is not set here", "set limits.cpu")
    draft.put("cpu.count", max(1, count))
    model = domain.text_at("cpu.model")
    features = [
        f"{'-' if one.text_at('policy') in ('disable', 'forbid') else '+'}{one.text_at('name')}"
        for one in domain.at("cpu.features").items()
    ]
    name = {"host-model": "host", "host-passthrough": "host"}.get(model, model)
    if name or features:
        draft.put("cpu.model", ",".join([name or "host", *features]))
    if model == "host-model":
        draft.changed("cpu.model", model, "the CPU is the host's own")
    if domain.on("cpu.dedicatedCpuPlacement"):
        draft.put("cpu.pin", "auto")
    guest, promised = domain.at("memory.guest"), domain.at("resources.requests.memory")
    if guest and promised.text:
        draft.done(promised.place, promised.text, "the guest's memory is what memory.guest says")
    (guest or promised).give(draft, "memory.size", _memory)
    if page := domain.text_at("memory.hugepages.pageSize"):
        draft.put("memory.hugepages", {"2Mi": "2M", "1Gi": "1G"}.get(page, "auto"))
        draft.changed("memory.hugepages", page, "pages are reserved when the machine starts and returned when it ends")


def _firmware(draft: Draft, domain: Node) -> None:
    loader = domain.at("firmware.bootloader")
    if loader.has("efi"):
        secure = loader.text_at("efi.secureBoot")
        foreign.uefi(draft, "bootloader.efi", secure=secure != "false", files=f"secureBoot={secure or 'true'}")
        if loader.on("efi.persistent"):
            draft.done("bootloader.efi.persistent", "true", "the machine's variables are kept")
    elif loader:
        draft.done("bootloader", loader.shown(), "SeaBIOS is there without being asked for")
    if direct := domain.at("firmware.kernelBoot"):
        reason = "kernel and initrd lie in an image of a registry"
        draft.lost("firmware.kernelBoot", direct.shown(), reason, "fetch them; boot.kernel, boot.initrd, boot.cmdline")
    for kind in ("sev", "snp", "tdx"):
        if domain.has(f"launchSecurity.{kind}"):
            node = domain.at(f"launchSecurity.{kind}")
            name = {"sev": "sev-es" if node.has("policy.encryptedState") else "sev", "snp": "sev-snp"}.get(kind, kind)
            foreign.encrypted(draft, "launchSecurity", f"{kind} {node.shown()}", name, bit=False)


def _clock(draft: Draft, clock: Node) -> None:
    if seconds := clock.text_at("utc.offsetSeconds"):
        draft.put("clock.offset", whole(seconds) or 0)
    if zone := clock.text_at("timezone"):
        draft.changed("clock.timezone", zone, "the clock is UTC", "set clock.base, or the guest's own zone")
    elif clock.has("utc"):
        draft.put("clock.base", "utc")


def _small(draft: Draft, domain: Node) -> None:
    devices = domain.at("devices")
    if devices.at("autoattachGraphicsDevice").text != "false":
        draft.put("display.type", "vnc")
        draft.done("autoattachGraphicsDevice", "true", "a screen is there unless it is taken away")
    else:
        draft.done("autoattachGraphicsDevice", "false", "there is no screen unless one is asked for")
    if devices.text_at("autoattachMemBalloon") == "false":
        draft.put("devices.balloon", False)
    if devices.has("tpm"):
        foreign.tpm(draft, "devices.tpm", devices.at("tpm").shown())
    if action := devices.text_at("watchdog.i6300esb.action"):
        draft.put("devices.watchdog", action)
        draft.done("devices.watchdog", devices.at("watchdog").shown(), "the watchdog is there")
    if devices.on("autoattachVSOCK"):
        draft.put("devices.vsock", 3)
        draft.changed("devices.autoattachVSOCK", "true", "the cluster chooses the number; here it is 3", "devices.vsock")
    for key in ("gpus", "hostDevices", "filesystems"):
        for one in devices.at(key).items():
            draft.lost(f"devices.{key}", one.shown(), "what it is, is in the cluster alone", "set pci = …, or share = …")
    found = []
    for name, one in domain.at("features.hyperv").pairs():
        if one.text_at("enabled") == "false":
            draft.done(one.place, one.shown(), "it is not there unless asked for")
            continue
        value = one.text_at("spinlocks") or one.text_at("vendorId")
        if one.at("direct"):
            found.append("stimer-direct" if one.on("direct.enabled", True) else "")
        found.append({"synictimer": "stimer", "vendorid": "vendor-id"}.get(name, name) + (f"={value}" if value else ""))
    if words := [one for one in found if one]:
        draft.put("cpu.hyperv", ",".join(words))
        draft.done("features.hyperv", domain.at("features.hyperv").shown(), "cpu.hyperv has them")


_BUSES = {"virtio": "virtio", "scsi": "scsi", "sata": "sata", "": "virtio"}


def _disk(draft: Draft, name: str, one: Node, volumes: dict[str, Node], blank: dict[str, Node]) -> None:
    where, volume = f"disk {name}", volumes.get(name) or Node(None)
    kind = next((key for key in ("disk", "cdrom", "lun", "floppy") if one.has(key)), "disk")
    for key in ("cloudInitNoCloud", "cloudInitConfigDrive"):
        if volume.has(key):
            _seed(draft, volume.at(key), where)
            others = " ".join(inside.shown() for name, inside in volume.pairs() if name != key)
            reason = "cloud-init finds the machine's configuration by itself"
            draft.done(where, f"{one.shown()} {others}".strip(), reason)
            return
    shown = volume.shown()
    file, amount = volume.text_at("hostDisk.path"), volume.text_at("emptyDisk.capacity")
    if made := blank.get(volume.text_at("dataVolume.name")):
        amount = made.text_at("spec.storage.resources.requests.storage") or made.text_at(
            "spec.pvc.resources.requests.storage"
        )
        draft.done(where, made.shown(), "a new, empty disk")
    if not file and not amount:
        file = f"{name}.qcow2"
        reason = f"its content is in the cluster or a registry: the machine looks for {file} beside the description"
        draft.check(where, shown or "no volume of that name", reason, "virtctl vmexport download, or skopeo copy")
    else:
        draft.done(where, shown, "what is in a disk is told by its content")
    size = quantity(amount) if amount else None
    disk = Disk(where, file, str(size) if size else "", cdrom=kind == "cdrom", order=whole(one.text_at("bootOrder")))
    if kind != "cdrom":
        bus = one.text_at(f"{kind}.bus")
        if bus in ("scsi", "sata"):
            disk.options["interface"] = bus
        draft.done(where, f"bus={bus or 'virtio'} bootOrder={disk.order}", "where a disk sits")
        if one.on(f"{kind}.readonly"):
            disk.options["readonly"] = True
    _tuned(draft, disk, one, where)
    draft.disks.append(disk)
    if kind == "floppy":
        draft.lost(where, kind, "there is no floppy drive", "it is a disk here")


def _tuned(draft: Draft, disk: Disk, one: Node, where: str) -> None:
    if cache := one.text_at("cache"):
        disk.options["cache"] = cache
    if aio := one.text_at("io"):
        disk.options["aio"] = {"default": "auto"}.get(aio, aio)
    if one.on("dedicatedIOThread"):
        disk.options["iothread"] = True
    if serial := one.text_at("serial"):
        draft.lost(where, f"serial={serial}", "a disk has the serial number of its place", "find it by its UUID")
    if one.on("shareable"):
        draft.lost(where, "shareable", "a disk is one machine's, or read-only", "set readonly = true")


def _seed(draft: Draft, seed: Node, where: str) -> None:
    data, encoded = seed.text_at("userData"), seed.text_at("userDataBase64")
    if encoded:
        try:
            data = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            draft.lost(where, HIDDEN, "its userDataBase64 is no text", "write it again")
    if data:
        draft.put("seed.user_data", data)
        draft.done(where, "userData", "cloud-init gets it: seed.user_data")
    for key in ("networkData", "networkDataBase64"):
        if value := seed.text_at(key):
            draft.lost(where, f"{key} {value}", "the machine's network is configured by DHCP", "set address = … in [[net]]")
    for key, one in seed.pairs():
        if key.endswith("Ref"):
            draft.lost(where, f"{key} {one.shown()}", "a secret is in the cluster alone", "set seed.user_data")


def _card(draft: Draft, one: Node, networks: dict[str, Node], *, windows: bool) -> None:
    name = one.text_at("name")
    where, network = f"interface {name}", networks.get(name) or Node(None)
    kind = next((key for key in ("masquerade", "bridge", "sriov", "slirp", "passt", "macvtap") if one.has(key)), "")
    net = foreign.connect(
        draft,
        where,
        {"masquerade": "nat", "slirp": "nat", "passt": "nat", "bridge": "bridged", "": "nat"}.get(kind, kind),
        network.text_at("multus.networkName"),
        "",
        one.text_at("macAddress"),
        windows=windows,
    )
    nets.card(draft, net, where, one.text_at("model"), windows=windows)
    for port in one.at("ports").items():
        reason = "the cluster leads it in by a Service; here no port leads in unasked"
        draft.check(where, f"port {port.shown()}", reason, f'forward = ["8080:{port.text_at("port")}"]')
    if one.text_at("state") == "down":
        draft.lost(where, "state=down", "its cable is plugged in here", "leave it out")
    draft.done(where, f"{kind} on {network.shown()}".strip(), "how the cluster connects the card")

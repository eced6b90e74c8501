"""Reader of the machines of cloud-hypervisor and Firecracker, in JSON.

Source: cloud-hypervisor's OpenAPI description (VmConfig); Firecracker's (firecracker.yaml) and its --config-file.
"""

from __future__ import annotations

from tinamou.convert import nets
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, of_json
from tinamou.convert.values import whole
from tinamou.units import Size

__all__ = ["read"]

_LEFT: Rules = (
    (
        r".*(rate_limiter|rate_limiter_config|rx_rate_limiter|tx_rate_limiter)\..*",
        "lost",
        "how much a device may move is set another way",
        "iops and bandwidth in [[disk]], rate_in in [[net]]",
    ),
    (
        r"(logger|metrics|mmds-config|api|gdb.*|platform|landlock.*|pci_segments.*|pvpanic|debug_console|preserved_fds)(\..*|\[.*)?",
        "done",
        "how that monitor runs the machine, not what it is",
        "",
    ),
    (
        r".*\.(id|drive_id|iface_id|vsock_id|queue_size|iommu|pci_segment|offload_.*|socket|src|disable_.*|num_queues|mask"
        r"|deflate_on_oom|free_page_reporting)|iommu|memory\.(shared|prefault)",
        "done",
        "how a device is attached is tinamou's to choose",
        "",
    ),
    (
        r"(serial|console)\..* rng\..* entropy.*",
        "done",
        "the serial port is the guest's console; random numbers are there",
        "",
    ),
    (r"balloon.*", "done", "the balloon is there", ""),
)


def _start(draft: Draft, kernel: Node, initrd: Node, words: str) -> None:
    draft.put("boot.kernel", kernel.text)
    if initrd.text:
        draft.put("boot.initrd", initrd.text)
    if words:
        draft.put("boot.cmdline", words)
    reason = "an uncompressed kernel starts here if it can be started by PVH; one for a microVM may lack drivers for PCI"
    draft.check(kernel.place, kernel.text, reason, "take a bzImage, or CONFIG_PVH and CONFIG_VIRTIO_PCI")


def _mib(number: int) -> str:
    return str(Size(number << 20))


def _bytes(text: str) -> str | None:
    number = whole(text)
    return None if not number else _mib(-(-number >> 20))


def read(text: str) -> Draft:
    """The machine of either. Raises SpecError."""
    root = of_json(text, "the machine")
    inner = root.at("config") if root.at("config.payload") else root
    return _of_cloud_hypervisor(inner) if inner.at("payload") else _of_firecracker(root)


def _of_firecracker(root: Node) -> Draft:
    draft = Draft("a Firecracker machine")
    config, source = root.key("machine-config"), root.key("boot-source")
    config.put(draft, "vcpu_count", "cpu.count", whole)
    config.put(draft, "mem_size_mib", "memory.size", lambda text: _mib(number) if (number := whole(text)) else None)
    if (pages := config.text_at("huge_pages")) not in ("", "None"):
        draft.put("memory.hugepages", "2M")
        draft.changed("huge_pages", pages, "pages are reserved when the machine starts and returned when it ends")
    if smt := config.text_at("smt") or config.text_at("ht_enabled"):
        draft.changed("smt", smt, "which CPUs are siblings is told by the topology", "set cpu.threads")
    if template := config.text_at("cpu_template"):
        draft.lost("cpu_template", template, "the guest sees the CPU's own features", "set cpu.model")
    if config.on("track_dirty_pages"):
        draft.done("track_dirty_pages", "true", "a checkpoint needs no such mark")
    words = source.text_at("boot_args")
    if "pci=off" in words.split():
        words = " ".join(one for one in words.split() if one != "pci=off")
        draft.changed("boot_args", "pci=off", "devices are on a PCI bus here, by MMIO there: taken out")
    for at, one in enumerate(root.at("drives").items()):
        where = f"drives[{at}]"
        first, readonly = one.on("is_root_device"), one.on("is_read_only")
        disk = Disk(where, one.text_at("path_on_host"), options={"readonly": True} if readonly else {})
        if (cache := one.text_at("cache_type")) and cache != "Unsafe":
            disk.options["cache"] = "writeback"
        draft.done(where, f"{cache} {one.text_at('io_engine')}".strip(), "how QEMU opens a disk; flushes are honoured")
        if first:
            part = one.text_at("partuuid")
            root_device = f"PARTUUID={part}" if part else f"/dev/vd{chr(ord('a') + len(draft.disks))}"
            words = f"{words} root={root_device} {'ro' if readonly else 'rw'}".strip()
        draft.disks.append(disk)
    _start(draft, source.at("kernel_image_path"), source.at("initrd_path"), words)
    draft.nets = []
    for at, one in enumerate(root.key("network-interfaces").items()):
        net, where = draft.net(type="tap", interface=one.text_at("host_dev_name")), f"network-interfaces[{at}]"
        if mac := one.text_at("guest_mac"):
            nets.set_mac(draft, net, where, mac)
        if one.on("allow_mmds_requests"):
            draft.lost(where, "MMDS", "there is no metadata service", "[seed]")
    _vsock(draft, root.at("vsock.guest_cid"), root.at("vsock.uds_path"))
    report(draft, root.unread(), _LEFT)
    return draft


def _vsock(draft: Draft, number: Node, path: Node) -> None:
    if found := whole(number.text):
        draft.put("devices.vsock", found)
        draft.changed("vsock", path.text, "host and guest speak over AF_VSOCK, not by this socket", "socat VSOCK-CONNECT:…")


def _of_cloud_hypervisor(root: Node) -> Draft:
    draft = Draft("a cloud-hypervisor machine")
    _size(draft, root)
    payload = root.at("payload")
    if kernel := payload.text_at("kernel"):
        _start(draft, payload.at("kernel"), payload.at("initramfs"), payload.text_at("cmdline"))
    if firmware := payload.text_at("firmware"):
        if kernel:
            draft.lost("payload.firmware", firmware, "a kernel that is given is started directly", "set firmware")
        else:
            draft.put("boot.firmware", "uefi")
            reason = "cloud-hypervisor's own firmware is not used: OVMF is"
            draft.changed("payload.firmware", firmware, reason, "the guest needs EFI/BOOT, as its loader")
    _disks(draft, root)
    draft.nets = []
    for at, one in enumerate(root.at("net").items()):
        _card(draft, one, at)
    for one in root.at("devices").items():
        _passed(draft, one)
    for one in root.at("fs").items():
        draft.lost("fs", one.shown(), "which folder it is, its virtiofsd was told", "share = …")
    _vsock(draft, root.at("vsock.cid"), root.at("vsock.socket"))
    if tpm := root.text_at("tpm.socket"):
        draft.put("tpm.enabled", True)
        draft.check("tpm", tpm, "the machine gets a new TPM, kept by swtpm", "have recovery keys at hand")
    if root.on("watchdog"):
        draft.put("devices.watchdog", "reset")
    report(draft, root.unread(), _LEFT)
    return draft


def _size(draft: Draft, root: Node) -> None:
    root.put(draft, "cpus.boot_vcpus", "cpu.count", whole)
    if (most := whole(root.text_at("cpus.max_vcpus"))) and most > (draft.get("cpu.count") or 1):
        draft.put("cpu.max", most)
    topology = root.at("cpus.topology")
    for key, field in (("threads_per_core", "threads"), ("cores_per_die", "cores"), ("packages", "sockets")):
        topology.put(draft, key, f"cpu.{field}", whole)
    root.put(draft, "memory.size", "memory.size", _bytes)
    if root.on("memory.hugepages"):
        page = whole(root.text_at("memory.hugepage_size"))
        draft.put("memory.hugepages", "1G" if page == 1 << 30 else "2M" if page == 2 << 20 else "auto")
    if root.on("memory.mergeable"):
        draft.put("memory.merge", True)


def _disks(draft: Draft, root: Node) -> None:
    for at, one in enumerate(root.at("disks").items()):
        where = f"disks[{at}]"
        disk = Disk(where, one.text_at("path"), options={"readonly": True} if one.on("readonly") else {})
        if one.on("direct"):
            disk.options["cache"] = "none"
        if queues := whole(one.text_at("num_queues")):
            disk.options["queues"] = queues
        draft.disks.append(disk)


def _card(draft: Draft, one: Node, at: int) -> None:
    where, tap, socket = f"net[{at}]", one.text_at("tap"), one.text_at("vhost_socket")
    net = draft.net(**({"type": "vhost-user", "socket": socket} if socket else {"type": "tap"}))
    if tap:
        net["interface"] = tap
    elif not socket:
        net["type"] = "auto"
        reason = "cloud-hypervisor would make an interface with this address; the card is on a network of its own"
        draft.changed(where, f"{one.text_at('ip')} {one.text_at('mask')}".strip(), reason, "set type, bridge")
    if mac := one.text_at("mac"):
        nets.set_mac(draft, net, where, mac)
    if mtu := whole(one.text_at("mtu")):
        net["mtu"] = mtu


def _passed(draft: Draft, one: Node) -> None:
    from tinamou.convert import foreign

    address = one.text_at("path").rstrip("/").rpartition("/")[2]
    foreign.passed_through(draft, "devices", one.shown(), address)

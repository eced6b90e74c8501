"""QEMU's arguments as facts that can be compared: what the guest has, whatever its devices are called and where they sit."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

_SHORT = {"-M": "-machine", "-nographic": "-display", "-enable-kvm": "-accel"}
_VALUELESS = {
    "-S",
    "-nodefaults",
    "-no-user-config",
    "-no-shutdown",
    "-no-reboot",
    "-no-acpi",
    "-no-hpet",
    "-daemonize",
    "-usb",
    "-mem-prealloc",
    "-full-screen",
}
_DISKS = {
    **{
        "virtio-blk-pci": "virtio",
        "virtio-blk-ccw": "virtio",
        "virtio-blk-device": "virtio",
        "nvme": "nvme",
        "nvme-ns": "nvme",
    },
    **{"scsi-hd": "scsi", "scsi-disk": "scsi", "scsi-block": "scsi", "scsi-generic": "scsi", "ide-hd": "sata"},
    **{"virtio-blk-pci-transitional": "virtio", "virtio-blk-pci-non-transitional": "virtio", "usb-storage": "usb"},
    **{"ide-cd": "cdrom", "scsi-cd": "cdrom", "floppy": "floppy", "sd-card": "sd"},
}
_CARDS = re.compile(r"virtio-net-.*|e1000.*|rtl8139|vmxnet3|ne2k_pci|pcnet|i8255\d\w?|usb-net|lan9118|igb")


def options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Option and value, of words behind the binary's name."""
    at = 0
    while at < len(words):
        word = _SHORT.get(words[at], words[at]).replace("--", "-", 1)
        if word in _VALUELESS or at + 1 == len(words) or not word.startswith("-"):
            yield word, ""
            at += 1
        else:
            yield word, words[at + 1]
            at += 2


def parts(text: str, first: str = "driver") -> dict[str, object]:
    """An option's value by key, JSON or not; nested keys have dots."""
    if text.startswith("{"):
        return dict(_flat(json.loads(text), ""))
    found: dict[str, object] = {}
    for number, one in enumerate(re.split(r"(?<!,),(?!,)", text)):
        key, equals, value = one.partition("=")
        found[key if equals else (first if number == 0 else key)] = (value if equals else key).replace(",,", ",")
    return found


def _flat(node: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for at, value in enumerate(node):
            yield from _flat(value, f"{path}.{at}")
    else:
        yield path, {True: "on", False: "off"}.get(node, node) if isinstance(node, bool) else node


class _Facts:
    def __init__(self, words: Sequence[str]) -> None:
        self.found: Counter[str] = Counter()
        self.nodes: dict[str, dict[str, object]] = {}
        self.netdevs: dict[str, dict[str, object]] = {}
        rest = []
        for option, value in options(words):
            if option in ("-blockdev", "-drive"):
                given = parts(value)
                name = str(given.get("node-name") or given.get("id") or f"drive{len(self.nodes)}")
                self.nodes[name] = given
                if option == "-drive" and given.get("if", "ide") != "none":
                    rest.append((option, name))
            elif option == "-netdev":
                given = parts(value, "type")
                self.netdevs[str(given["id"])] = given
            else:
                rest.append((option, value))
        for option, value in rest:
            getattr(self, "_" + option.strip("-").replace("-", "_"), self._other)(option, value)

    def add(self, *words: object) -> None:
        self.found[" ".join(str(one) for one in words)] += 1

    def _other(self, option: str, value: str) -> None:
        self.add("option", option, re.sub(r"\s+", " ", value))

    def _drive(self, option: str, name: str) -> None:
        given = self.nodes[name]
        if given.get("if") == "pflash":
            self.add("firmware", "variables" if given.get("unit") in (1, "1") else "code")
        else:
            self.add("disk", self.file(name), given.get("if"))

    def file(self, name: str) -> str:
        """The file at the end of a chain of nodes: of one with a base, the base's."""
        for _ in range(40):
            given = self.nodes.get(name, {})
            below = given.get("backing") or given.get("file")
            if isinstance(below, str) and below in self.nodes:
                name = below
            else:
                break
        given = self.nodes.get(name, {})
        for key in ("filename", "file.filename", "file", "file.path", "path", "device"):
            if isinstance(given.get(key), str):
                return str(given[key])
        return f"{given.get('driver', '?')}:{given.get('image', given.get('export', ''))}"

    def read_only(self, name: str) -> bool:
        given = self.nodes.get(name, {})
        return (given.get("read-only") or given.get("readonly")) == "on"

    def _device(self, option: str, value: str) -> None:
        given = parts(value)
        driver = str(given.get("driver"))
        if driver in _DISKS and "drive" in given:
            name = str(given["drive"])
            self.add("disk", self.file(name), _DISKS[driver])
            if self.read_only(name) and _DISKS[driver] not in ("cdrom", "floppy"):
                self.add("disk", self.file(name), "readonly")
            for key in ("logical_block_size", "serial", "wwn", "rotation_rate", "share-rw", "num-queues", "bootindex"):
                if key in given and given[key] not in (0, "off", "0"):
                    self.add("disk", self.file(name), key, given[key])
        elif driver in _DISKS:
            self.add("drive empty", _DISKS[driver])
        elif _CARDS.fullmatch(driver):
            kind = self.netdevs.get(str(given.get("netdev")), {}).get("type", "none")
            self.add("net", "virtio" if driver.startswith("virtio") else driver, kind, given.get("mac", ""))
            for key in ("host_mtu", "mq", "rss"):
                if given.get(key) not in (None, "off", 0):
                    self.add("net", given.get("mac", ""), key, given[key])
        elif driver == "vfio-pci":
            self.add("pci", given.get("host"))
        else:
            self.add("device", driver)

    def _machine(self, option: str, value: str) -> None:
        given = parts(value, "type")
        board = str(given.pop("type", ""))
        self.add("board", "q35" if "q35" in board else "pc" if board.startswith("pc") else board.split("-")[0])
        for key, one in given.items():
            self.add("machine", f"{key}={one}")

    def _accel(self, option: str, value: str) -> None:
        self.add("accel", value.partition(",")[0])

    def _cpu(self, option: str, value: str) -> None:
        model, *features = value.split(",")
        self.add("cpu", model)
        for one in features:
            key = one.lstrip("+-").replace("_", "-")
            key, _, state = key.partition("=")
            state = {"+": "on", "-": "off"}.get(one[0], state or "on")
            self.add("feature", f"{key}={state}")

    def _smp(self, option: str, value: str) -> None:
        given = parts(value, "cpus")
        self.add("cpus", given.get("cpus"))
        if (most := given.get("maxcpus", given.get("cpus"))) != given.get("cpus"):
            self.add("cpus most", most)
        for key in ("sockets", "dies", "clusters", "cores", "threads"):
            if str(given.get(key, "1")) != "1":
                self.add("topology", key, given[key])

    def _m(self, option: str, value: str) -> None:
        given = parts(value, "size")
        text = str(given.get("size"))
        number, unit = int(re.sub(r"\D", "", text)), text.lstrip("0123456789") or "m"
        mib = number * {"k": 1 / 1024, "m": 1, "g": 1024}[unit.lower()]
        self.add("memory", int(-(-mib // 1)), "MiB")
        if "maxmem" in given:
            self.add("memory most")

    def _object(self, option: str, value: str) -> None:
        given = parts(value, "qom-type")
        self.add("object", given.get("qom-type"))

    def _chardev(self, option: str, value: str) -> None:
        given = parts(value, "backend")
        self.add("chardev", given.get("backend"))

    def _serial(self, option: str, value: str) -> None:
        self.add("serial")

    def _rtc(self, option: str, value: str) -> None:
        base = str(parts(value, "base").get("base", "utc"))
        self.add("clock", base if base in ("utc", "localtime") else "moment")


def facts(words: Sequence[str]) -> Counter[str]:
    """What a command line gives its guest; ``words`` behind the binary's name."""
    return _Facts(words).found

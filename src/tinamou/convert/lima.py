"""Reader of Lima's instances (lima.yaml).

Source: Lima's templates/default.yaml, which has every field with its default.
"""

from __future__ import annotations

from tinamou.convert import foreign, nets
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, of_yaml
from tinamou.convert.values import mebibytes, switch, whole

__all__ = ["read"]

_ARCHES = ("x86_64", "aarch64", "riscv64")
_RULES: Rules = (
    (
        r"(ssh|hostResolver|dns|propagateProxyEnv|caCerts|env|probes|message|minimumLimaVersion|os|vmType|vmOpts|rosetta"
        r"|guestInstallPrefix|upgradePackages|copyToHost|plain|user|timezone|base|mountType|mountInotify|mountTypesUnsupported"
        r"|param|video|audio|ssh)(\..*|\[.*)?",
        "changed",
        "Lima arranges this itself; here it is arranged another way, or not at all",
        "[seed], tinamou ssh, display",
    ),
    (r"images\[\d+\]\..*", "changed", "an image for another machine, or another part of one", "set image"),
    (r"mounts\[\d+\]\..*", "done", "virtio-fs, by a virtiofsd that tinamou starts", ""),
    (r"(additionalDisks|networks)\[.*", "lost", "it is Lima's own, and not here", "add [[disk]] or [[net]]"),
    (r"cpuType\..*", "changed", "the CPU is the host's own", "set cpu.model"),
    (r"nestedVirtualization", "changed", "virtualization is there where the host permits it", "tinamou doctor"),
)


def read(text: str) -> Draft:
    """The machine. Raises SpecError."""
    found = of_yaml(text, "the Lima instance")
    root = found[0] if found else Node({})
    draft = Draft("a Lima instance", confined=True)
    arch = root.text_at("arch")
    if arch in _ARCHES:
        draft.put("arch", arch)
    elif arch not in ("", "default"):
        draft.lost("arch", arch, "tinamou has no machines of that", f"it has {', '.join(_ARCHES)}")
    if not root.put(draft, "cpus", "cpu.count", whole):
        draft.put("cpu.count", 4)
        draft.changed("cpus", root.text_at("cpus"), "Lima takes four, or all the host has", "set cpus")
    if not root.put(draft, "memory", "memory.size", mebibytes):
        draft.put("memory.size", "4G")
        draft.changed("memory", root.text_at("memory"), "Lima takes 4 GiB, or half of the host's", "set memory")
    _image(draft, root, arch)
    if legacy := root.text_at("firmware.legacyBIOS"):
        draft.done("firmware.legacyBIOS", legacy, "the firmware of the machine")
    if switch(legacy):
        draft.put("boot.firmware", "bios")
    else:
        foreign.uefi(draft, "firmware", secure=False, files=root.at("firmware.images").shown())
    if wanted := root.at("containerd"):
        rank = "lost" if any(one.text == "true" for _, one in wanted.pairs()) else "done"
        reason, fix = "no containerd is installed", "install it: seed.packages"
        draft.note(rank, "containerd", wanted.shown(), reason, fix)  # type: ignore[arg-type]
    _mounts(draft, root)
    net = draft.net()
    for one in root.at("portForwards").items():
        _forward(draft, net, one)
    _provision(draft, root)
    report(draft, root.unread(), _RULES)
    for other in found[1:]:
        draft.lost("document", other.shown(), "another document in the same file", "convert it on its own")
    return draft


def _image(draft: Draft, root: Node, arch: str) -> None:
    images = root.at("images").items()
    fitting = [one for one in images if one.text_at("arch") in ("", arch) or arch in ("", "default")]
    size_said = root.text_at("disk")
    if not fitting:
        draft.check("images", " ".join(one.shown() for one in images), "no image is named for it", "set image")
    else:
        place = fitting[0].text_at("location")
        file = place.rpartition("/")[2] if "://" in place else place
        draft.disks.append(Disk("images", file, order=0))
        shown = f"{place} {fitting[0].text_at('digest')} {fitting[0].text_at('arch')}".strip()
        if "://" in place:
            draft.check("images", shown, f"it is fetched from there: the machine looks for {file}", f"curl -LO {place}")
        else:
            draft.done("images", shown, "the machine's image")
        if kernel := fitting[0].at("kernel"):
            draft.lost("images", kernel.shown(), "the image starts by its own boot loader", "set kernel, cmdline")
    reason = "the image's layer has the image's own size"
    draft.changed("disk", size_said or "100GiB", reason, "qemu-img resize the image first")


def _mounts(draft: Draft, root: Node) -> None:
    for one in root.at("mounts").items():
        location, point, writable = one.text_at("location"), one.text_at("mountPoint"), one.text_at("writable")
        foreign.folder(draft, "mounts", f"{location} at {point or location} writable={writable or 'false'}")


def _forward(draft: Draft, net: dict[str, object], one: Node) -> None:
    host, port = one.text_at("hostIP") or "127.0.0.1", one.text_at("guestPort")
    to, proto = one.text_at("hostPort") or port, one.text_at("proto") or "tcp"
    if port and not one.on("ignore") and proto in ("tcp", "udp"):
        nets.forward(draft, net, "portForwards", f"{proto}:{host}:{to}-:{port}")
        draft.done("portForwards", f"{proto} {host} {to} {port} {one.text_at('guestIP')}", "the port is forwarded")
    else:
        draft.lost("portForwards", one.shown(), "it is no single port that leads in", "set forward = …")


def _provision(draft: Draft, root: Node) -> None:
    scripts = root.at("provision").items()
    system = [one for one in scripts if one.text_at("mode") in ("system", "") and one.text_at("script")]
    for one in scripts:
        if system and one is system[0]:
            draft.put("seed.user_data", one.text_at("script"))
            reason = "cloud-init runs it, once; Lima would at every start"
            draft.changed("provision", f"mode={one.text_at('mode')}", reason, "install a service of systemd's")
        else:
            draft.lost("provision", one.shown(), "one script is given to cloud-init, as root", "join them in seed.user_data")

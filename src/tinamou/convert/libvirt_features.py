"""Reader of a libvirt domain's ``<features>``: Hyper-V's interfaces; the others follow from what the machine has.

Source: libvirt's documentation, *Domain XML format*, hypervisor features.
"""

from __future__ import annotations

from tinamou.convert.result import Draft
from tinamou.convert.xml import Element, children
from tinamou.parts.hyperv import parse

__all__ = ["read"]

_NAMES = {"spinlocks": "retries", "vendor_id": "value"}
"""Those with a value, and the attribute that has it."""
_INNER = {
    "stimer-direct": "stimer-direct",
    "tlbflush-direct": "tlbflush-direct",
    "tlbflush-extended": "tlbflush-ext",
}
"""Elements of elements."""


def read(draft: Draft, root: Element) -> None:
    """Enlightenments become ``cpu.hyperv``, as they were; the rest follows from the machine."""
    hyperv, kvm = root.find("features/hyperv"), root.find("features/kvm")
    words: list[str] = []
    if hyperv is not None and (mode := hyperv.get("mode") or "custom") != "custom":
        reason = "the guest is shown what its system needs, not whatever this kernel has"
        draft.changed("features/hyperv", f"mode={mode} {hyperv.shown()}", reason, "set cpu.hyperv to a list")
    elif hyperv is not None:
        words += _hyperv(draft, hyperv)
    words += [
        "time"
        for one in children(root, "clock/timer")
        if one.get("name") == "hypervclock" and one.get("present", "yes") == "yes"
    ]
    if words:
        draft.put("cpu.hyperv", ",".join(words))
        reason = "the guest is shown exactly these, and what they need; they are KVM's"
        fix = "leave cpu.hyperv out and set os: the guest is shown what its Windows needs"
        draft.done("features/hyperv", ", ".join(words), reason, fix)
    hidden = kvm.find("hidden") if kvm is not None else None
    if hidden is not None and hidden.get("state") == "on":
        reason = "it hid KVM from graphics drivers of before 2021, which refused to work in a guest; today it costs time"
        draft.changed("features/kvm", "hidden", reason, 'set cpu.model = "host,kvm=off" for such a driver')


def _hyperv(draft: Draft, node: Element) -> list[str]:
    words, unknown = [], []
    for one in node:
        if one.get("state", "on") != "on":
            draft.done("features/hyperv", f"{one.tag} {one.shown()}", "the guest is not shown it")
            continue
        value = one.get(_NAMES.get(one.tag, ""), "")
        word = one.tag.replace("_", "-") + (f"={value}" if value else "")
        try:
            parse(word)
        except ValueError as error:
            unknown.append(str(error))
            continue
        words.append(word)
        words += [
            f"{one.tag}-{below.tag}"
            for below in one
            if below.get("state", "on") == "on" and below.tag in ("direct", "extended")
        ]
    names = {"tlbflush-extended": "tlbflush-ext"}
    words = [names.get(word, word) for word in words]
    for reason in unknown:
        draft.lost("features/hyperv", reason.partition(":")[0], reason.partition(": ")[2], "leave it out")
    return words

"""Whether every wall around QEMU and its helpers stands on this host."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.doctor.inspection import Inspection
from tinamou.facts.labels import POLICY
from tinamou.facts.walls import NAMESPACES

TITLE = "Walls around QEMU"


def check(seen: Inspection) -> Finding:
    """Each namespace was tried by starting a process in it; where one is missing, Landlock is what remains."""
    facts = seen.walls()
    if facts is None:
        return unknown("no process was started to try them")
    landlock = f"Landlock {facts.landlock}" if facts.landlock else "no Landlock"
    inside = ", inside a user namespace" if facts.user else ""
    if seen.facts.selinux:
        landlock += "; no SELinux label" if seen.facts.selinux_refused else "; SELinux labels"
    readers = seen.readers()
    landlock += "".join(f"; no {what} for qemu-img" if why else f"; an {what} for qemu-img" for what, why in readers.items())
    if not facts.refused and seen.facts.selinux_refused:
        return warning(f"no SELinux label: {seen.facts.selinux_refused}", f"semodule -i {POLICY}, as root, once")
    missing = next(((what, why) for what, why in readers.items() if why), None)
    if not facts.refused and missing:
        return warning(f"no {missing[0]} for qemu-img: {missing[1]}", _FIX_READERS[missing[0]])
    if not facts.refused:
        return good(f"namespaces of its own: {', '.join(NAMESPACES)}{inside}; {landlock}")
    kinds: dict[str, list[str]] = {}
    for kind, why in facts.refused.items():
        kinds.setdefault(why, []).append(kind)
    shown = "; ".join(f"no namespace for {', '.join(names)}: {why}" for why, names in kinds.items())
    return warning(f"{shown}; {landlock}", _FIX)


_UNTIL_THEN = "until then namespaces, Landlock and the list of system calls hold it"
_FIX_READERS = {
    "AppArmor profile": f"mend what that says; {_UNTIL_THEN}, as without AppArmor",
    "SELinux label": f"semodule -i {POLICY}, as root, once, if an older one is loaded; {_UNTIL_THEN}, as without SELinux",
}
_FIX = (
    "start machines as root; or sysctl kernel.apparmor_restrict_unprivileged_userns=0, kernel.unprivileged_userns_clone=1, "
    "user.max_user_namespaces; in a container: one whose profile allows unshare, mount and pivot_root"
)

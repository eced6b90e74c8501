"""Whether the processor's known flaws are mitigated, between guest and host too."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Processor vulnerabilities"
_FOLDER = "/sys/devices/system/cpu/vulnerabilities"
_FIX = "update the microcode and the kernel; do not switch mitigations off where guests are not trusted"


def check(seen: Inspection) -> Finding:
    """Reads what the kernel reports, and whether mitigations were switched off on its command line."""
    names = seen.files.names(_FOLDER)
    if not names:
        return unknown(f"{_FOLDER} is missing")
    states = {name: seen.files.read(f"{_FOLDER}/{name}") or "" for name in names}
    exposed = [f"{name} ({text})" for name, text in states.items() if text.startswith(("Vulnerable", "KVM: Vulnerable"))]
    options = (seen.command_line() or {}).get("mitigations", "").split(",")
    off = [
        word for word in options if word in ("off", "no_guest_host", "no_guest_guest", "no_user_kernel", "no_cross_thread")
    ]
    parts = [f"vulnerable: {', '.join(exposed)}"] if exposed else []
    if off:
        parts.append(f"switched off on the kernel command line: mitigations={','.join(off)}")
    if parts:
        return warning("; ".join(parts), _FIX)
    return good(f"{len(names)} known flaws, none left open")

"""Whether the physical network cards take work off guests on a bridge."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Network offloads"
_WANTED = ("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload")


def check(seen: Inspection) -> Finding:
    """Asks ethtool about every card that has a device behind it."""
    cards = [name for name in seen.files.names("/sys/class/net") if seen.files.exists(f"/sys/class/net/{name}/device")]
    if not cards:
        return unknown("no physical network card")
    off = {}
    for card in cards:
        text = seen.command(["ethtool", "-k", card])
        if text is None:
            return unknown(f"ethtool is not installed (apt install ethtool), or may not ask {card}")
        rows = dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)
        off[card] = [name for name in _WANTED if rows.get(name, "").startswith("off")]
    slow = [f"{card}: {', '.join(names)} off" for card, names in off.items() if names]
    if slow:
        return info(
            "; ".join(slow), "ethtool -K CARD tso on gso on gro on (leave them off where the driver is known to fail)"
        )
    return good(f"on for {', '.join(cards)}")

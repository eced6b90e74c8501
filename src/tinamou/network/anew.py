"""A guest that has other hardware addresses than it booted with asks for its network addresses once more.

By DHCP it asks with what it has for that: the tiny guest's own script, systemd-networkd, NetworkManager, dhcpcd, or the
dhclient or udhcpc that runs for the card. Where files of the guest's say what to do with a card by its hardware address,
that is replaced in them. Its IPv6 addresses, which it makes of the hardware address, are made again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tinamou.errors import GuestError, TimeLimitError
from tinamou.guest.resident import Line
from tinamou.late import dataclass

__all__ = ["Card", "Found", "ask_anew", "found"]

_SECONDS = 60.0
"""How long all cards may take together; each has 20 s of the guest's time, of which its client itself takes at most 12."""

_SCRIPT = r"""
v4() { ip -4 -o addr show dev "$n" scope global | sed -n 's/.* inet \([0-9.]*\).*/\1/p' | head -n 1; }

seconds() { cut -d. -f1 /proc/uptime; }

rewrite() { # netplan writes the address that a card keeps below the one it is given
    for f in $(grep -ril "$was" /etc/systemd/network /run/systemd/network /etc/netplan /etc/udev/rules.d \
        /etc/NetworkManager/system-connections 2>/dev/null); do
        sed -i "/PermanentMACAddress/!s/$was/$mac/gI" "$f"
    done
}

running() { # one process of that program, for this card where its words say which
    for p in /proc/[0-9]*; do
        words=$(tr '\0' ' ' <"$p/cmdline" 2>/dev/null); first=${words%% *}; first=${first##*/}
        [ "${first%:}" = "$1" ] || continue
        case "$1 $words" in dhcpcd* | *" $n "* | *" -i$n "*) return ;; esac
    done 2>/dev/null
    false
}

forget() { rm -f $1; ip -4 addr flush dev "$n"; }

ask() { # never with a word of farewell: it would be the other machine's address that is given back
    if [ -x /lib/tinamou/network ]; then
        ! running udhcpc || kill -9 "${p#/proc/}"; forget; /lib/tinamou/network "$n"
    elif grep -qs ADMIN_STATE=conf "/run/systemd/netif/links/$(cat "/sys/class/net/$n/ifindex")"; then
        forget; networkctl reload; networkctl reconfigure "$n"
    elif nmcli -g GENERAL.STATE device show "$n" 2>/dev/null | grep -q ^100; then
        forget "/var/lib/NetworkManager/*-$n.lease"; nmcli connection reload; nmcli -w 10 device connect "$n"
    elif running dhcpcd; then
        dhcpcd -x "$n"; forget "/var/lib/dhcpcd/$n*.lease /var/db/dhcpcd/$n*.lease"; timeout 12 dhcpcd "$n"
    elif running dhclient || running udhcpc; then
        kill -9 "${p#/proc/}"; forget "/var/lib/dhcp/dhclient*lease*"; setsid $words &
    else
        return 1
    fi
}

renew() {
    n=
    for p in /sys/class/net/*; do [ -e "$p/device" ] && [ "$(cat "$p/address")" = "$mac" ] && n=${p##*/}; done
    [ -n "$n" ] || return
    rewrite
    v6=/proc/sys/net/ipv6/conf/$n/disable_ipv6
    [ "$how" != fixed6 ] && [ "$(cat "$v6" 2>/dev/null)" = 0 ] && echo 1 >"$v6" && echo 0 >"$v6"
    [ "$how" = dhcp ] || return
    old=$(v4) end=$(($(seconds) + 20))
    if ask </dev/null >/dev/null 2>&1; then
        until [ -n "$(v4)" ] || [ "$(seconds)" -gt "$end" ]; do sleep 0.2; done
    fi
    echo "= $mac ${old:-none} $(v4)"
}

for card; do
    IFS=/ read -r mac was how <<END
$card
END
    renew &
done
wait
"""

_LINE = re.compile(r"^= ([0-9a-f:]{17}) (none|[\d.]{7,15})(?: ([\d.]{7,15})?)?$", re.MULTILINE)
_MOST = 1 << 16


@dataclass(frozen=True)
class Card:
    """A card by its hardware address, the one it had before, and how it comes to its address: dhcp, fixed, fixed6 (IPv6)."""

    mac: str
    was: str
    how: str = "dhcp"


@dataclass(frozen=True)
class Found:
    """The IPv4 address a card had before, and the one it has now; empty where there was, or is, none."""

    before: str
    now: str


async def ask_anew(line: Line, cards: Sequence[Card]) -> tuple[dict[str, Found], str]:
    """Let a guest ask; by hardware address what came of it, for those by DHCP that it has, and why nothing did."""
    words = [f"{one.mac}/{one.was}/{one.how}".lower() for one in cards]
    try:
        done = await line.run(["sh", "-c", _SCRIPT, "sh", *words], timeout=_SECONDS)
    except TimeLimitError:
        return {}, f"it did not end asking within {_SECONDS:g} s"
    except GuestError as error:
        return {}, error.why or error.what
    return found(done.stdout[:_MOST].decode(errors="replace")), ""


def found(text: str) -> dict[str, Found]:
    """What the guest's own script printed: pure. What it cannot have printed is left out."""
    return {mac: Found("" if before == "none" else before, now) for mac, before, now in _LINE.findall(text)}

"""Telling a running guest the fixed address of a card that was plugged in after its boot."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tinamou.errors import TinamouError
from tinamou.parts.net import NetSpec

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["OF_CARD", "tell_address"]

OF_CARD = "tr '\\0' ' ' </proc/$p/cmdline | grep -q -- \"-i $n \""
"""Shell: whether process p is the DHCP client of card n in the tiny guest, which has no pkill."""
_SCRIPT = r"""
n=
for i in $(seq 50); do
  for p in /sys/class/net/*; do [ "$(cat $p/address)" = "$mac" ] && n=${p##*/}; done
  [ -n "$n" ] && break; sleep 0.1
done
[ -n "$n" ] || { echo "no interface has the address $mac" >&2; exit 1; }
asks() { for p in $(pidof udhcpc); do OF_CARD && return; done; false; }
has() { ip addr show dev "$n" | grep -qF " $address "; }
tell() {
  ip link set "$n" up && { ip addr replace "$address" dev "$n" 2>/dev/null || has || ip addr add "$address" dev "$n"; }
  has || return
  [ -z "$gateway" ] || ip route replace default via "$gateway" dev "$n"
}
if [ -x /lib/tinamou/network ]; then # the tiny guest asks for an address by DHCP, and would take the fixed one away
  for i in $(seq 50); do
    asks && kill $p && break
    ip -4 addr show dev "$n" | grep -q inet && ip -4 addr flush dev "$n" && break # it had its answer
    sleep 0.1
  done
  for i in 1 2 3 4; do tell || exit; sleep 0.2; done # it begins by taking addresses away, and may be about to
fi
tell || exit
for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
""".replace("OF_CARD", OF_CARD)


async def tell_address(agent: Agent, card: NetSpec, mac: str) -> str:
    """Set address, gateway and name servers of the card by the guest's agent; returns why that was not possible."""
    words = {"mac": mac, "address": card.address, "gateway": card.gateway, "dns": " ".join(card.dns)}
    script = "".join(f"{name}={shlex.quote(word)}\n" for name, word in words.items()) + _SCRIPT
    try:
        done = await agent.run(["sh", "-c", script], timeout=20, bare=True)
    except (TinamouError, TimeoutError) as error:
        return str(error) or "the guest's agent does not answer"
    return done.stderr.decode(errors="replace").strip() if done.status else ""

#!/bin/bash
# `ip -json` keeps an empty object for what its filter left out; `tc -json class` is not JSON for HTB.
#
# Expected: `ip -json link show up` lists the interfaces that are up, and only those; `tc -json …` prints JSON or fails.
#
# What happens: filters that iproute2 applies itself (up, group, addresses) leave `{}` for each interface that does not
# match, while those the kernel applies (master, type of a loaded module) leave nothing. `tc -json class show` of an HTB
# class, what limits a machine's rate, prints the text it prints without -json, and ends with 0.
#
# Why it matters: counting the list counts interfaces that are down, `item["ifname"]` raises KeyError on a host with one
# more interface than the developer's, and a parser of tc works for the other disciplines (tbf, fq_codel) and breaks on
# this one.
set -euo pipefail
deb() { # PACKAGE VERSION: what is installed where that is the version, else unpacked in the temporary folder
  [ "$(dpkg-query -W -f '${Version}' "$1" 2>/dev/null)" = "$2" ] && return
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$1=$2" && dpkg-deb -x "$1"_*.deb root)
}
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
if [ "${1-}" != inside ]; then # in a network namespace of its own: nothing of the host is seen or changed
  work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
  deb iproute2 6.1.0-3
  own=(unshare --net)
  [ "$(id -u)" = 0 ] || own+=(--map-root-user)
  "${own[@]}" "$0" inside "$work"
  exit
fi
work=$2
export PATH=$work/root/sbin:$work/root/bin:/usr/sbin:/sbin:$PATH
kinds() { python3 -c 'import json, sys; print(*[discipline["kind"] for discipline in json.load(sys.stdin)])'; }
names() { python3 -c 'import json, sys; print(*[link.get("ifname", "{}") for link in json.load(sys.stdin)])'; }
ip -Version
ip link set lo up
ip link add veth0 type veth peer name veth1
ip link add br0 type bridge
ip link set veth0 master br0
is "ip -json link show" "$(ip -json link show | names)" "lo veth1 veth0 br0"
is "ip -json link show up" "$(ip -json link show up | names)" "lo {} {} {}"
is "ip -json addr show up" "$(ip -json addr show up | names)" "lo {} {} {}"
is "ip -json link show group 7" "$(ip -json link show group 7 | names)" "{} {} {} {}"
is "ip -json link show master br0" "$(ip -json link show master br0 | names)" "veth0"

tc qdisc add dev veth0 root handle 1: htb default 10
tc class add dev veth0 parent 1: classid 1:10 htb rate 10mbit
is "tc -json qdisc show, kinds" "$(tc -json qdisc show dev veth0 | kinds)" htb
status=0
tc -json class show dev veth0 >"$work/class" || status=$?
is "exit status of tc -json class show" "$status" 0
is "tc -json class show" "$(sed 's/ *$//' "$work/class" | grep .)" \
  "class htb 1:10 root prio 0 rate 10Mbit ceil 10Mbit burst 1600b cburst 1600b"

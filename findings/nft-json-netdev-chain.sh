#!/bin/bash
# nft does not read back what it lists as JSON, where a chain hangs on a device.
#
# Expected: `nft -j list ruleset` is the ruleset in another notation, and `nft -j -f` of it gives the same rules, as `nft
# list ruleset` and `nft -f` do.
#
# What happens: the JSON of a base chain of family netdev has type, hook, priority and policy, and no device. Reading it
# back is refused ("Missing `device' in this chain definition"), and with it the whole transaction: no table comes back.
#
# Why it matters: filters of a guest's tap are such chains, in ingress and egress. A tool that keeps, compares or restores
# them through JSON (python-nftables gives nothing else) cannot tell which interface a chain filters; it has to read the
# text.
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
  for package in nftables libnftables1; do deb $package 1.0.6-2+deb12u2; done
  own=(unshare --net)
  [ "$(id -u)" = 0 ] || own+=(--map-root-user)
  "${own[@]}" "$0" inside "$work"
  exit
fi
work=$2
libraries=$(echo "$work"/root/usr/lib/*-linux-gnu)
export PATH=$work/root/usr/sbin:/usr/sbin:/sbin:$PATH LD_LIBRARY_PATH=$libraries
cd "$work"
nft --version
nft -f - <<'RULES'
table netdev guest {
  chain from_guest {
    type filter hook ingress device "lo" priority 0; policy drop;
    ether saddr 52:54:00:12:34:56 accept
  }
}
table inet host {
  chain input {
    type filter hook input priority 0; policy accept;
  }
}
RULES
nft list ruleset >rules.txt
nft -j list ruleset >rules.json
nft flush ruleset
nft -f rules.txt
is "tables after reading the text" "$(nft list tables | tr '\n' ' ')" "table netdev guest table inet host "
members='import json; print(*sorted(next(x["chain"] for x in json.load(open("rules.json"))["nftables"] if "chain" in x)))'
is "what the JSON says of the chain" "$(python3 -c "$members")" \
  "family handle hook name policy prio table type"
nft flush ruleset
status=0
nft -j -f rules.json 2>err || status=$?
is "exit status of reading the JSON" "$status" 1
is "it says" "$(grep -o 'Missing.*' err | sort -u)" "Missing \`device' in this chain definition"
is "tables after reading the JSON" "$(nft list tables | tr '\n' ' ')" ""

#!/bin/bash
# ovs-vsctl --may-exist add-port BRIDGE PORT tag=9 leaves the tag of a port that exists as it is, and ends with 0.
#
# Expected: --may-exist makes the command mean "have it so": the port is there afterwards, with the settings that were named.
#
# What happens: a port that is on that bridge already is left alone, settings and all, without a word. (One on another bridge is an
# error, so it is not that nothing is compared.) Only a set command of its own changes it.
#
# Why it matters: a VLAN that is changed in a description and applied again stays the old one: the guest is in a network it was
# taken out of. Write: --may-exist add-port BRIDGE PORT -- set port PORT tag=9.
set -euo pipefail
deb() { # PACKAGE VERSION: what is installed where that is the version, else unpacked in the temporary folder
  [ "$(dpkg-query -W -f '${Version}' "$1" 2>/dev/null)" = "$2" ] && return
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$1=$2" && dpkg-deb -x "$1"_*.deb root)
}
libraries() { # PACKAGES: those that are not installed, in whatever version this Debian has
  for name in "$@"; do
    dpkg-query -W "$name" >/dev/null 2>&1 ||
      (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$name" && dpkg-deb -x "$name"_*.deb root)
  done
  LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
}
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
work=$(mktemp -d) && trap 'kill "$(cat "$work/pid" 2>/dev/null)" 2>/dev/null || true; rm -rf "$work"' EXIT
deb openvswitch-common 3.1.0-2+deb12u1
deb openvswitch-switch 3.1.0-2+deb12u1
libraries libbpf1 libcap-ng0 libelf1 libevent-2.1-7 libhogweed6 libnettle8 libnuma1 libssl3 libunbound8 libxdp1
PATH=$work/root/usr/bin:$work/root/usr/sbin:$PATH:/usr/sbin
schema=$work/root/usr/share/openvswitch/vswitch.ovsschema
[ -e "$schema" ] || schema=/usr/share/openvswitch/vswitch.ovsschema
cd "$work"
ovs-vsctl --version | head -1
ovsdb-tool create conf.db "$schema"
ovsdb-server conf.db --remote="punix:$work/db.sock" --pidfile="$work/pid" --unixctl="$work/ctl" --log-file="$work/log" --detach \
  2>/dev/null
vsctl() { ovs-vsctl --no-wait --db="unix:$work/db.sock" "$@"; }
vsctl init
vsctl add-br br0
vsctl add-br br1
vsctl add-port br0 guest tag=5
status=0
vsctl --may-exist add-port br0 guest tag=9 || status=$?
is "exit status of --may-exist add-port" "$status" 0
is "the port's tag" "$(vsctl get port guest tag)" 5
vsctl --may-exist add-port br0 guest -- set port guest tag=9
is "its tag after a set command" "$(vsctl get port guest tag)" 9
is "the same port on another bridge" "$(vsctl --may-exist add-port br1 guest 2>&1 || true)" \
  'ovs-vsctl: "--may-exist add-port br1 guest" but guest is actually attached to bridge br0'

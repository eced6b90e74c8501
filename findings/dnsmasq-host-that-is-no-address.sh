#!/bin/bash
# dnsmasq takes an address that cannot be one for a host name, and a MAC address of five bytes for one.
#
# Expected: --dhcp-host=52:54:00:00:00:01,10.0.0.300 is refused, by --test at the latest, as a duplicate address or a hexadecimal
# digit too many is.
#
# What happens: what is no IPv4 address may still be a name, so the guest is given the name 10.0.0.300 and any free address.
# A prefix length after the address makes a name of it too. A hardware address may have any length, so one byte too few is
# another host's. Lines of a --dhcp-hostsfile are not looked at by --test at all.
#
# Why it matters: a typing error in a reservation is no error anywhere; the guest is reached at its address until the pool gives it
# another one. Whoever writes such lines must check them.
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
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
deb dnsmasq-base 2.90-4~deb12u2
libraries libdbus-1-3 libhogweed6 libidn2-0 libjansson4 libmnl0 libnetfilter-conntrack3 libnettle8 libnfnetlink0 libnftables1 libnftnl11
PATH=$work/root/usr/sbin:$PATH:/usr/sbin
dnsmasq --version | head -1
said() { dnsmasq --test --conf-file=/dev/null --dhcp-range=10.0.0.2,10.0.0.9 "$@" 2>&1 | grep . | tail -1 || true; }
fine="dnsmasq: syntax check OK."
is "an address with 300 in it" "$(said --dhcp-host=52:54:00:00:00:01,10.0.0.300)" "$fine"
is "an address with a prefix length" "$(said --dhcp-host=52:54:00:00:00:01,10.0.0.5/24)" "$fine"
is "a hardware address of five bytes" "$(said --dhcp-host=52:54:00:00:01,10.0.0.5)" "$fine"
is "a digit that is none" "$(said --dhcp-host=52:54:00:00:00:0g,10.0.0.5)" "dnsmasq: bad command line options: bad hex constant"
is "an address twice" "$(said --dhcp-host=52:54:00:00:00:01,10.0.0.5 --dhcp-host=52:54:00:00:00:02,10.0.0.5)" \
  "dnsmasq: bad command line options: duplicate dhcp-host IP address 10.0.0.5"
printf '52:54:00:00:00:0g,10.0.0.300\nno line of it, at all\n' >"$work/hosts"
is "a file of such lines" "$(said --dhcp-hostsfile="$work/hosts")" "$fine"

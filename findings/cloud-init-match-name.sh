#!/bin/bash
# cloud-init 22.4 takes a section's label for the interface where network configuration 2 says `match: {name: "en*"}`.
#
# Expected: in version 2 the key below `ethernets` is a label of one's own, and `match` says which interfaces are meant;
# where a renderer cannot match names by a pattern, cloud-init says so.
#
# What happens: only netplan is handed the pattern. For ifupdown (eni), systemd-networkd and NetworkManager the pattern is
# dropped and the label becomes the interface's name: no interface has it, the guest has no network, and nothing is
# logged. networkd and NetworkManager could match the pattern themselves.
#
# Why it matters: a seed that was tried on Ubuntu (netplan) leaves Debian 12 guests without network. Matching by
# macaddress with set-name works everywhere.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download cloud-init=22.4.2-1+deb12u4)
dpkg-deb -x "$work"/cloud-init_*.deb "$work/root"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check PyYAML==6.0.4 Jinja2==3.1.6 jsonschema==4.26.0 jsonpatch==1.48 \
  configobj==5.0.9 oauthlib==4.0.1 requests==2.34.2 2>"$work/pip.log" || { cat "$work/pip.log"; exit 1; }
cd "$work/root/usr/lib/python3/dist-packages" # the package's own modules, not run as root's installation
# Files belong to whoever runs this: a bare system has no user systemd-network.
cloud_init() {
  "$work/venv/bin/python" -W ignore -c 'import sys; from cloudinit import util; from cloudinit.cmd.main import main
util.chownbyname = lambda *_, **__: None; sys.argv[0] = "cloud-init"; sys.exit(main())' "$@"
}
cloud_init --version
cat >"$work/network.yaml" <<'YAML'
version: 2
ethernets:
  uplink:
    match: {name: "en*"}
    dhcp4: true
YAML
render() { # RENDERER: the words that name an interface in what it wrote
  cloud_init devel net-convert -p "$work/network.yaml" -k yaml -D debian -O "$1" -d "$work/$1" >"$work/$1.log" 2>&1
  if grep -i -E 'warn|error' "$work/$1.log"; then return; fi # it would be seen as a change
  grep -rhE '^iface|^Name=|^interface-name=|^ *name:' "$work/$1" | grep -v 'lo inet loopback' | sed 's/^ *//'
}
is netplan "$(render netplan)" "name: en*"
is "eni (ifupdown)" "$(render eni)" "iface uplink inet dhcp"
is systemd-networkd "$(render networkd)" "Name=uplink"
is NetworkManager "$(render network-manager)" "interface-name=uplink"

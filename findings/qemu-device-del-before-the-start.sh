#!/bin/bash
# device_del before a machine ever ran is taken once; from then on QEMU refuses it for good, also while the guest runs.
#
# Expected: a machine that was started with -S has no guest that could object: the device is gone at once, or QEMU refuses, and may be
# asked again once the guest runs.
#
# What happens: the first device_del succeeds and presses the slot's button, which nobody notices; no event comes. Every later one is
# refused with "already in the process of unplug", before and after the machine is let run. A reset releases the device.
#
# Why it matters: a launcher that builds a machine stopped and takes a device out again has a device that stays until a restart, and
# waits for an event that never comes. Leave the device out of the command line, or let the guest run first.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
deb() { # PACKAGE VERSION: what is installed where that is the version, else unpacked in the temporary folder
  [ "$(dpkg-query -W -f '${Version}' "$1" 2>/dev/null)" = "$2" ] && return
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$1=$2" && dpkg-deb -x "$1"_*.deb root)
}
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
deb qemu-system-x86 1:7.2+dfsg-7+deb12u18+b3
PATH=$work/root/usr/bin:$PATH
qemu-system-x86_64 --version | head -1
said() { # COMMAND…: what QEMU answers to each after the greeting, a line each
  { printf '{"execute": "qmp_capabilities"}\n'; printf '%s\n' "$@"; printf '{"execute": "quit"}\n'; } |
    timeout 60 qemu-system-x86_64 -machine q35 -accel tcg -nodefaults -display none -S -qmp stdio \
      -device pcie-root-port,id=rp1 -device virtio-rng-pci,id=rng,bus=rp1 |
    tr -d '\r' | grep -v -e '"event"' -e '"QMP"' | sed 's/.*"desc": "\([^"]*\)".*/\1/; s/{"return": {}}/taken/' | sed 1d
}
delete='{"execute": "device_del", "arguments": {"id": "rng"}}'
is "device_del, once" "$(said "$delete" | head -1)" taken
is "again" "$(said "$delete" "$delete" | sed -n 2p)" "Device rng is already in the process of unplug"
is "after cont" "$(said "$delete" '{"execute": "cont"}' "$delete" | sed -n 3p)" "Device rng is already in the process of unplug"

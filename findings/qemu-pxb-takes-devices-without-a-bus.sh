#!/bin/bash
# After a pxb-pcie, QEMU puts every device that names no bus behind it, and dies of the first.
#
# Expected: a device without bus= is put on the board's own bus (pcie.0), whatever else was added before, as it is without a
# pxb-pcie. An extra root complex, which tells a guest which memory node a card is beside, is a place for those that name it.
#
# What happens: the search for "any PCI bus" finds the newest root bus first. Only bridges may be plugged into a pxb-pcie, so QEMU ends
# with "PCI: Only PCI/PCIe bridges can be plugged into pxb-pcie", which blames the device. A root port without a bus is a
# bridge: it is taken, silently, and its card is said to be beside another memory node than it is.
#
# Why it matters: adding one line for NUMA locality breaks lines that were right for years, or moves cards without a word. Put
# pxb-pcie last, or name bus=pcie.0 everywhere.
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
ask='{"execute":"qmp_capabilities"}{"execute":"qom-get","arguments":{"path":"/machine/peripheral/x","property":"parent_bus"}}
{"execute":"quit"}'
where() { # ARGUMENTS: the bus of the device x, or what QEMU says of it
  { qemu-system-x86_64 -M q35 -accel tcg -nodefaults -display none -S -qmp stdio "$@" <<<"$ask" || true; } 2>&1 |
    sed -n 's/.*"return": "\/\(.*\)".*/\1/p; s/.*id=x[^:]*: //p'
}
pxb=(-device 'pxb-pcie,id=pxb,bus_nr=64')
is "a device alone" "$(where -device virtio-rng-pci,id=x)" machine/q35/pcie.0
is "a device before a pxb-pcie" "$(where -device virtio-rng-pci,id=x "${pxb[@]}")" machine/q35/pcie.0
is "a device after it" "$(where "${pxb[@]}" -device virtio-rng-pci,id=x)" \
  "PCI: Only PCI/PCIe bridges can be plugged into pxb-pcie"
is "a device after it that names its bus" "$(where "${pxb[@]}" -device virtio-rng-pci,id=x,bus=pcie.0)" machine/q35/pcie.0
port=$(where "${pxb[@]}" -device pcie-root-port,id=x,chassis=1)
is "a root port after it, the bus" "${port##*/}" pxb

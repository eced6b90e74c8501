#!/bin/bash
# QEMU makes devices written as -device driver,key=value before those written in JSON, whatever their order on the command line.
#
# Expected: devices are made in the order of the command line, as they are where all are written one way: the first has the first
# free slot of its bus, and one that another one names as its bus comes before that.
#
# What happens: all -device of the older form are made first, then all in JSON. The order of each form is kept.
#
# Why it matters: a launcher that writes JSON and takes more arguments from its user cannot put them last: the user's device gets the
# first slots, so that the launcher's own move (and with them a guest's names of disks and cards), and a device of the user's
# cannot sit on a bus that the launcher adds: "Bus not found". Give every device an address, or write the user's in JSON too.
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

ask='{"execute":"qmp_capabilities"}{"execute":"query-pci"}{"execute":"quit"}'
slots() { # ARGUMENTS: the slots and ids of the devices on the board's bus
  qemu-system-x86_64 -M q35 -accel tcg -nodefaults -display none -S -qmp stdio "$@" <<<"$ask" | python3 -c '
import json, sys
answers = [json.loads(line).get("return") for line in sys.stdin]
buses = next(answer for answer in answers if isinstance(answer, list))
print(*sorted("%d %s" % (one["slot"], one["qdev_id"]) for one in buses[0]["devices"] if one["qdev_id"]), sep=", ")'
}
is "both as key=value" "$(slots -device virtio-rng-pci,id=first -device virtio-rng-pci,id=second)" "1 first, 2 second"
is "both in JSON" "$(slots -device '{"driver":"virtio-rng-pci","id":"first"}' -device '{"driver":"virtio-rng-pci","id":"second"}')" \
  "1 first, 2 second"
is "the first in JSON" "$(slots -device '{"driver":"virtio-rng-pci","id":"first"}' -device virtio-rng-pci,id=second)" \
  "1 second, 2 first"
port='{"driver":"pcie-root-port","id":"port","chassis":1}'
is "on a bus that is in JSON" "$(qemu-system-x86_64 -M q35 -accel tcg -display none -S -device "$port" \
  -device virtio-rng-pci,bus=port 2>&1 | sed 's/.*: //')" "Bus 'port' not found"

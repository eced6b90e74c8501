#!/bin/bash
# A QEMU that is started with a tap another one uses changes the header of that one's packets, before it has run or been refused.
#
# Expected: two processes that have the same queue of a tap open (a live update, a handover, a trial of a new binary with the old one's
# descriptors) leave each other alone until the second one is told to run.
#
# What happens: how long the header before each packet is (TUNSETVNETHDRSZ) belongs to the interface, not to who has it open. Every QEMU
# sets it to 10 bytes while it reads its command line; a guest with virtio 1 has had it set to 12. QEMU writes that down nowhere, and
# one that ends at once (here: at an unknown device) leaves the interface so.
#
# Why it matters: from then on every packet of the running guest begins with two bytes of its header: the bridge sees other addresses
# and types in it, and drops it. The running QEMU notices nothing, and sets the length again only when its guest's driver starts anew.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
[ "$(id -u)" = 0 ] || { echo "it makes a tap, in a network namespace of its own: root alone may" >&2; exit 2; }
qemu-system-x86_64 --version | head -1
cat >"$work/tap.py" <<'PYTHON'
import fcntl, os, struct, subprocess, sys

GET, SET, IFF = 0x800454D7, 0x400454D8, 0x400454CA
tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tap, IFF, struct.pack("16sH22x", b"tap0", 0x5002))  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
fcntl.ioctl(tap, SET, struct.pack("i", 12))
words = ["-S", "-machine", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-netdev", f"tap,id=net0,fd={tap}"]
words += ["-device", "virtio-net-pci,netdev=net0"] if sys.argv[1] == "waits" else ["-device", "there-is-none"]
words += ["-qmp", "stdio"]
with subprocess.Popen(["qemu-system-x86_64", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                      pass_fds=[tap]) as qemu:
    qemu.stdout.readline()  # its greeting, or its end
    print(struct.unpack("i", fcntl.ioctl(tap, GET, bytes(4)))[0])
    qemu.kill()
PYTHON
is "bytes of the header, which were 12, beside a QEMU that waits (-S)" "$(unshare --net python3 "$work/tap.py" waits)" 10
is "bytes of the header, which were 12, after a QEMU that was refused" "$(unshare --net python3 "$work/tap.py" refused)" 10

#!/bin/bash
# A VMDK of the kind that is made to be sent (streamOptimized) opens for writing, takes whole grains, and fails everything smaller.
#
# Expected: an image that opens read-write can be written; one that cannot be opens read-only alone, as QEMU does for other formats.
#
# What happens: a write of 64 KiB at a multiple of that succeeds where nothing was written before; one of 4 KiB fails with EINVAL, also
# in an empty image, and a second one to the same grain with EIO.
#
# Why it matters: a guest boots from it, and its file system breaks with the first write. Whatever starts machines from such files must
# put an overlay on top, or convert them.
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
deb qemu-utils 1:7.2+dfsg-7+deb12u18+b3
PATH=$work/root/usr/bin:$PATH
cd "$work"
qemu-img --version | head -1
wrote() { # IMAGE COMMAND: whether qemu-io could
  qemu-io -f vmdk -c "$2" "$1" >said 2>&1 || true
  grep -q '^wrote' said && echo yes || echo "no: $(sed -n 's/^write failed: //p' said)"
}
qemu-img create -q -f vmdk -o subformat=streamOptimized packed.vmdk 64M
is "4 KiB into an empty image" "$(wrote packed.vmdk 'write 0 4k')" "no: Invalid argument"
is "a whole grain" "$(wrote packed.vmdk 'write 1M 64k')" yes
is "the same grain again" "$(wrote packed.vmdk 'write 1M 64k')" "no: Input/output error"
qemu-img create -q -f vmdk plain.vmdk 64M
is "4 KiB into a plain VMDK" "$(wrote plain.vmdk 'write 0 4k')" yes

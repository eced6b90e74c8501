#!/bin/bash
# dissect.hypervisor reads a VirtualBox disk wrongly, without an error, when one read spans several blocks.
#
# Expected: reading a whole dynamic VDI in one go gives what reading it block by block gives, and what qemu-img makes of
# it.
#
# What happens: the state of the first block of a read is taken for all of it. Begun in a block that was never written,
# the whole read is zeros; begun in a written one, it goes on in the file, whatever lies there, and is cut off where the
# file ends. A read of at most one block (1 MiB in practice), at a multiple of it, is right.
#
# Why it matters: `read()`, or copying with a large buffer, turns a disk into zeros and calls it a success. Readers made
# for forensics are taken for importers too. Until it is mended: read in pieces of `VDI.block_size`.
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
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check dissect.hypervisor==3.21 dissect.cstruct==4.7 \
  dissect.util==3.24 2>"$work/pip.log" || { cat "$work/pip.log"; exit 1; }
cd "$work"
qemu-img --version | head -1
"$work/venv/bin/pip" list --disable-pip-version-check 2>/dev/null | grep dissect

qemu-img create -q -f vdi disk.vdi 4M # four blocks: never written, ones, never written, threes
qemu-io -c "write -q -P 49 1M 1M" -c "write -q -P 51 3M 1M" disk.vdi
qemu-img check -q disk.vdi
qemu-img convert -O raw disk.vdi disk.raw
cat >read.py <<'PY'
import sys
from dissect.hypervisor.disk.vdi import VDI

start, length, piece = (int(number) << 20 for number in sys.argv[1:])
with open("disk.vdi", "rb") as file:
    disk = VDI(file)
    assert disk.block_size == 1 << 20
    stream = disk.open()
    data = b""
    for offset in range(start, start + length, piece):
        stream.seek(offset)
        data += stream.read(piece)
print("".join(chr(byte) if byte else "0" for byte in data[:: 1 << 20]), len(data) >> 20, "MiB")
PY
letters() { "$work/venv/bin/python" read.py "$@"; } # FROM LENGTH PIECE in MiB: one letter for each MiB that came
is "the disk by qemu-img" "$(for i in 0 1 2 3; do tail -c +$((i * 1048576 + 1)) disk.raw | head -c 1 | tr '\0' 0; done)" 0103
is "in pieces of a block" "$(letters 0 4 1)" "0103 4 MiB"
is "4 MiB from the start" "$(letters 0 4 4)" "0000 4 MiB"
is "2 MiB from the written block, where the disk has ones and nothing" "$(letters 1 2 2)" "13 2 MiB"
is "3 MiB from there" "$(letters 1 3 3)" "13 2 MiB"

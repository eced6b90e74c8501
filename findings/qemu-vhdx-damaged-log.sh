#!/bin/bash
# qemu-img finds no errors in a VHDX whose header names a log in which nothing can be played back.
#
# Expected: a header with a log's GUID says that the file was not closed, and that what was written last is in the log alone. Where
# the log has no valid sequence with that GUID, that is lost: the file is damaged, and is said to be.
#
# What happens: QEMU looks for a sequence, finds none, and goes on as if the header had named no log. info, check and
# convert succeed, and a guest starts on tables from before the last writes. (With a valid sequence it is careful: it refuses to
# open the file for reading only, and plays the log back otherwise.)
#
# Why it matters: a VHDX copied from a running or crashed Hyper-V, with its log region damaged or cut, is converted without
# a word. Look at bytes 48 to 63 of the newer header (at 64 or 128 KiB): not all zero means that it was not closed.
set -euo pipefail
deb() { # PACKAGE VERSION: what is installed where that is the version, else unpacked in the temporary folder
  [ "$(dpkg-query -W -f '${Version}' "$1" 2>/dev/null)" = "$2" ] && return
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$1=$2" && dpkg-deb -x "$1"_*.deb root)
}
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
deb qemu-utils 1:7.2+dfsg-7+deb12u18+b3
PATH=$work/root/usr/bin:$PATH
cd "$work"
qemu-img --version | head -1
qemu-img create -q -f vhdx disk.vhdx 8M
is "qemu-img check of a new file" "$(qemu-img check disk.vhdx)" "No errors were found on the image."
python3 - <<'PY'
import struct

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF

with open("disk.vhdx", "r+b") as file:
    for at in (0x10000, 0x20000):
        file.seek(at)
        header = bytearray(file.read(4096))
        header[48:64] = bytes(range(1, 17))
        header[4:8] = bytes(4)
        header[4:8] = struct.pack("<I", crc32c(header))
        file.seek(at)
        file.write(header)
PY
is "the log's GUID in its first header" "$(od -An -tx1 -j 65584 -N 4 disk.vhdx | tr -d ' ')" 01020304
is "qemu-img check then" "$(qemu-img check disk.vhdx)" "No errors were found on the image."
status=0
qemu-img convert -O raw disk.vhdx disk.raw || status=$?
is "exit status of qemu-img convert" "$status" 0

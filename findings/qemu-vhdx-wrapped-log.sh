#!/bin/bash
# qemu-img plays back half of a VHDX's log where its first entry goes on at the log's beginning.
#
# Expected: the log is a ring. What counts is the run of entries, numbered one after another, that has the highest number and begins
# where its last entry says the oldest one lies ([MS-VHDX] 2.3.3); all of them are played back, oldest first.
#
# What happens: QEMU looks from the log's beginning on, and takes the first run that has the highest number, wherever it begins:
# that the last entry names an older one before it is not looked at. An entry at the end of the ring that goes on at its
# beginning is left out then, and the log is emptied: what that entry said is lost. "check -r all" says that all is well.
#
# Why it matters: it is how a disk of a Hyper-V that crashed is read. The log has 1 MiB and is written round and round, so that an
# entry lies across its end every few hundred of them.
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
# A disk of zeros, and two entries: the first has a sector with a word, the second another one. Where they lie is all that differs.
logged() { # FILE TAIL
  qemu-img create -q -f vhdx "$1" 8M
  qemu-io -f vhdx -c "write -q -P 0 0 8M" "$1"
  python3 - "$1" "$2" <<'PY'
import struct, sys

SECTOR, LOG, GUID = 4096, 1 << 20, bytes(range(1, 17))

def summed(data):
    crc = 0xFFFFFFFF
    data[4:8] = bytes(4)
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    data[4:8] = struct.pack("<I", crc ^ 0xFFFFFFFF)
    return bytes(data)

def entry(number, tail, size, place, word):
    sector = word.ljust(SECTOR, b".")
    data = bytearray(2 * SECTOR)
    struct.pack_into("<4sIIIQII16sQQ", data, 0, b"loge", 0, len(data), tail, number, 1, 0, GUID, size, size)
    struct.pack_into("<4s4s8sQQ", data, 64, b"desc", sector[-4:], sector[:8], place, number)
    struct.pack_into("<4sI4084sI", data, SECTOR, b"data", 0, sector[8:-4], number)
    return summed(data)

path, tail = sys.argv[1], int(sys.argv[2])
with open(path, "r+b") as file:
    size = file.seek(0, 2)
    for number, at in enumerate((0x10000, 0x20000), 1000):
        file.seek(at)
        header = bytearray(file.read(SECTOR))
        struct.pack_into("<Q", header, 8, number)
        header[48:64] = GUID
        length, log = struct.unpack_from("<IQ", header, 68)
        assert length == LOG
        file.seek(at)
        file.write(summed(header))
    data = size - (8 << 20)
    both = entry(41, tail, size, data, b"FIRST") + entry(42, tail, size, data + SECTOR, b"SECOND")
    for offset in range(0, len(both), SECTOR):
        file.seek(log + (tail + offset) % LOG)
        file.write(both[offset : offset + SECTOR])
PY
}
words() { # FILE: what is played back of both entries
  qemu-img check -r all "$1" | tail -1 >said
  qemu-img convert -O raw "$1" raw
  head -c 8192 raw | tr -c 'A-Z' '\n' | grep . | paste -sd ' '
}
logged middle.vhdx 8192
is "both entries in the middle of the log" "$(words middle.vhdx)" "FIRST SECOND"
logged across.vhdx 1044480
is "the first across its end" "$(words across.vhdx)" "SECOND"
is "what qemu-img check says" "$(cat said)" "No errors were found on the image."

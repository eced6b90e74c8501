#!/bin/bash
# A compressed cluster of a qcow2 image, cut out by its own descriptor, is more than one zstd frame.
#
# Expected: the descriptor of a compressed cluster says where its data is and how long it is, so what lies there can be
# given to a zstd decoder, as that of a zlib cluster can be given to inflate, which stops at its end and hands back the
# rest.
#
# What happens: the length counts whole sectors of 512 bytes, and qemu-img packs clusters without a gap. Behind the frame
# lie those of the next clusters, and zstd defines frames that follow one another as one stream: a decoder of whole
# buffers, the command among them, does not stop. It gives the neighbours' data too, and then fails on the frame that is
# cut off, or on padding.
#
# Why it matters: a reader of qcow2 that passed its tests with zlib returns too much, or an error, on sound images. It has
# to decode one frame, or stop at the size of a cluster; ZSTD_decompress, `zstd -d` and Python's zstd.decompress do
# neither.
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
deb zstd 1.5.4+dfsg2-5
PATH=$work/root/usr/bin:$PATH
cd "$work"
qemu-img --version | head -1
zstd --version

for letter in A B C D; do head -c 65536 /dev/zero | tr '\0' $letter; done >plain.raw # four clusters, each of one letter
qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd plain.raw packed.qcow2
qemu-img compare plain.raw packed.qcow2

# The first entry of the first L2 table: bit 62 compressed, from bit 54 the number of further sectors, then the offset.
python3 - <<'PY'
import struct
image = open("packed.qcow2", "rb").read()
(l1,) = struct.unpack_from(">Q", image, 40)
(l2,) = struct.unpack_from(">Q", image, l1)
(entry,) = struct.unpack_from(">Q", image, l2 & 0x00FFFFFFFFFFFE00)
assert entry >> 62 & 1, "not a compressed cluster"
offset, sectors = entry & (1 << 54) - 1, (entry >> 54 & 0xFF) + 1
open("cluster0", "wb").write(image[offset : offset // 512 * 512 + sectors * 512])
PY
is "bytes the descriptor names" "$(stat -c %s cluster0)" 512
status=0
zstd -q -d -c cluster0 >out 2>err || status=$?
printf 'zstd says: %s\n' "$(tr '\n' ' ' <err)"
is "exit status of zstd -d" "$status" 1
is "letters in what it gave" "$(fold -w 65536 out | cut -c1 | tr -d '\n')" ABCD
is "its first 65536 bytes are the cluster" "$(head -c 65536 out | cmp - <(head -c 65536 plain.raw) && echo yes)" yes
echo "as found: one cluster of 65536 bytes came out as $(stat -c %s out)"

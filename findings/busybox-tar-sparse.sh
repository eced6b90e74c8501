#!/bin/bash
# A sparse file packed by GNU tar in pax format leaves busybox's tar with another name, other content and status 0.
#
# Expected: a tar that does not know the sparse extension of pax says so, as it does for the older GNU form.
#
# What happens: pax has no type for sparse files. GNU tar stores an ordinary file that begins with the map of data and
# holes, in a folder GNUSparseFile.PID, and has the true name and size in records that a reader may skip. Busybox skips
# them: it writes map and data as one short file into that folder and ends with 0. For the old GNU form it ends with 1.
#
# Why it matters: `tar -S … | ssh guest tar -x` is how disks and databases get into small guests, whose tar is busybox's.
# The form that looks like the portable one loses the file without a word; who packs for such a guest leaves out -S, or
# writes no pax.
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
deb busybox-static 1:1.35.0-4+deb12u1+b1
deb tar 1.34+dfsg-1.2+deb12u1
PATH=$work/root/bin:$PATH
cd "$work"
tar --version | head -1
busybox | head -1

truncate -s 8M disk.img # data in two blocks, a hole between them
printf boot | dd of=disk.img conv=notrunc status=none
printf tail | dd of=disk.img bs=1M seek=7 conv=notrunc status=none
for form in posix gnu; do
  tar --sparse --format=$form -cf $form.tar disk.img
  mkdir $form
  status=0
  busybox tar -C $form -xf $form.tar 2>$form.err || status=$?
  echo "$form: status $status; $(cat $form.err) $(cd $form && find . -type f -printf '%p of %s bytes')"
  echo $status >$form.status
done
is "status of busybox for pax" "$(cat posix.status)" 0
is "status of busybox for the GNU form" "$(cat gnu.status)" 1
is "disk.img after the first" "$([ -e posix/disk.img ] && echo there || echo missing)" missing
is "in its place" \
  "$(cd posix && find . -type f -printf '%p %s' | sed 's/File\.[0-9]*/File.PID/')" "./GNUSparseFile.PID/disk.img 8704"
is "it begins with a count of pieces" "$(head -1 posix/*/disk.img)" 3

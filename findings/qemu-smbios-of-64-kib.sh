#!/bin/bash
# SMBIOS tables of 64 KiB stop a machine from starting, unless the entry point is the 64-bit one that QEMU does not choose by itself.
#
# Expected: -smbios type=11,path=FILE takes a file of any size: OEM strings are how systemd credentials and cloud-init seeds reach a
# guest, and are as long as those are.
#
# What happens: the sum of all tables has 16 bits in the entry point that QEMU 7.2 writes. Beyond that it ends at the start. With
# smbios-entry-point-type=64 the same machine starts. Newer QEMUs choose by themselves, but not for machine types of 8.0 and older.
#
# Why it matters: it works in tests, with short strings, and fails for the first user whose seed is long. The message names lengths
# and no option.
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
for size in 60000 66000; do printf "%${size}s" '' | tr ' ' x >"$work/$size"; done
starts() { # SIZE [MACHINE OPTIONS]: whether QEMU runs a machine with an OEM string of that many bytes
  printf '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n' |
    timeout 60 qemu-system-x86_64 -machine "q35${2-}" -accel tcg -nodefaults -display none -S -qmp stdio \
      -smbios type=11,path="$work/$1" >/dev/null 2>"$work/said" && echo yes || echo no
}
is "60000 bytes" "$(starts 60000)" yes
is "66000 bytes" "$(starts 66000)" no
is "what it says" "$(grep -c 'SMBIOS' "$work/said")" 1
is "66000 bytes, 64-bit entry point" "$(starts 66000 ,smbios-entry-point-type=64)" yes

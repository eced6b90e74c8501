#!/bin/bash
# `sbattach --remove` does not give back the file that `sbsign` signed, although the two have one Authenticode digest.
#
# Expected: a signature is appended to an EFI program, so taking it off gives the program as it was; comparing files, or
# their SHA-256, tells whether an unsigned kernel is the one the distribution ships.
#
# What happens: sbsign pads the program to a multiple of eight bytes, and that stays; the checksum in the header is that
# of the padded file. Authenticode leaves the checksum out and pads by itself: signed again, the file is the same, byte
# for byte.
#
# Why it matters: a cache or a list of known kernels that is keyed by the file's hash misses a program that was signed
# once; the key that survives is the Authenticode digest, which is also what Secure Boot's db and dbx hold.
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
deb sbsigntool 0.9.4-3.1
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download systemd-boot-efi=252.39-1~deb12u2)
dpkg-deb -x "$work"/systemd-boot-efi_*.deb "$work/root"
PATH=$work/root/usr/bin:$PATH
cd "$work"
sbsign --version
program=root/usr/lib/systemd/boot/efi/linuxx64.efi.stub
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=findings -days 1 2>/dev/null
sign() { sbsign --key key.pem --cert cert.pem --output "$2" "$1" 2>/dev/null; }
# The field CheckSum of the PE header, which begins where the word at 60 says.
checksum() { od -An -tx4 -j $(($(od -An -tu4 -j 60 -N 4 "$1") + 88)) -N 4 "$1" | tr -d ' '; }

sign $program signed.efi
cp signed.efi unsigned.efi
sbattach --remove unsigned.efi 2>/dev/null
sign unsigned.efi again.efi
status=0
sbverify --list unsigned.efi 2>err || status=$?
is "sbverify --list of it" "$status $(grep -c 'No signature table present' err)" "0 1"
is "bytes at first, and after signing and removing" "$(stat -c %s $program unsigned.efi | tr '\n' ' ')" "83297 83304 "
is "checksum at first, and after" "$(checksum $program) $(checksum unsigned.efi)" "0001aa6c 0001aa73"
is "bytes that differ, beside the padding" "$(cmp -l -n 83297 $program unsigned.efi | wc -l)" 1
is "signed again" "$(cmp -s signed.efi again.efi && echo equal || echo differ)" equal

#!/bin/bash
# Two point releases of sev-snp-measure compute different launch digests of one SEV-SNP guest, all options given.
#
# Expected: the expected measurement is a function of firmware, number and model of CPUs and guest features, which the
# specification fixes; a point release of the calculator gives the same digest for the same arguments.
#
# What happens: 0.0.10 changed two things at once. --guest-features went from 0x21 to 0x1 by default, and the page that
# every vCPU starts from (VMSA), which is measured, has MXCSR 0x1f80 and an x87 control word 0x037f where 0.0.9 has zeros.
# So stating the features does not bring the old digest back. Neither is wrong: it is the host's kernel that fills the
# page, and kernels differ.
#
# Why it matters: a digest that was written down as "the good one" is good for one generation of host kernels. Who
# verifies reports has to keep the calculator's version, and the host's, beside the digest, or accept one for each kind of
# host.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download ovmf=2022.11-6+deb12u2)
dpkg-deb -x "$work"/ovmf_*.deb "$work/root"
for version in 0.0.9 0.0.10; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install -q --disable-pip-version-check sev-snp-measure==$version cryptography==50.0.2 \
    2>"$work/pip.log" || { cat "$work/pip.log"; exit 1; }
done
cd "$work"
digest() { # VERSION OPTION…: of a guest with one EPYC-v4 and Debian's firmware; its first eight bytes
  "$work/$1/bin/sev-snp-measure" --mode snp --vcpus 1 --vcpu-type EPYC-v4 \
    --ovmf root/usr/share/OVMF/OVMF_CODE_4M.fd "${@:2}" |
    cut -c1-16
}
is "0.0.9" "$(digest 0.0.9)" c0572ed551f8f892
is "0.0.10" "$(digest 0.0.10)" 68d8e64d29b9823e
is "0.0.9, guest features 0x21" "$(digest 0.0.9 --guest-features 0x21)" c0572ed551f8f892
is "0.0.10, guest features 0x21" "$(digest 0.0.10 --guest-features 0x21)" bbb1680fd66966a9
for version in 0.0.9 0.0.10; do
  digest $version --guest-features 0x21 --dump-vmsa >/dev/null
  mv vmsa0.bin $version.vmsa
done
word() { od -An -tx2 -j "$2" -N 2 "$1.vmsa" | tr -d ' '; }
is "bytes of the VMSA that differ" "$(cmp -l 0.0.9.vmsa 0.0.10.vmsa | wc -l)" 4
is "MXCSR at 0x408, x87 control word at 0x410, 0.0.9" "$(word 0.0.9 0x408) $(word 0.0.9 0x410)" "0000 0000"
is "the same, 0.0.10" "$(word 0.0.10 0x408) $(word 0.0.10 0x410)" "1f80 037f"

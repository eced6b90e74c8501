#!/bin/bash
# Under emulation QEMU 7.2 takes every Hyper-V enlightenment without a word but one, for which it asks the kernel.
#
# Expected: enlightenments are KVM's, so that -accel tcg refuses them all, or says that none has an effect.
#
# What happens: hv-relaxed, hv-time, hv-synic, hv-stimer, hv-evmcs and the rest are accepted by -accel tcg, on a processor that is
# not Intel's too, and hv-stimer without what it needs. hv-vpindex alone ends QEMU: "kernel doesn't allow setting HyperV
# VP_INDEX", though no kernel is asked anything here. A name that is none is refused, so names can be tried this way.
#
# Why it matters: a command line for Windows that starts under emulation proves nothing about its dependencies, and the same
# line with hv-vpindex does not start at all. QEMU 10.0 and 11.1 accept that one as well.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
deb() { # PACKAGE VERSION: what is installed where that is the version, else unpacked in the temporary folder
  [ "$(dpkg-query -W -f '${Version}' "$1" 2>/dev/null)" = "$2" ] && return
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$1=$2" && dpkg-deb -x "$1"_*.deb root)
}
said() { # FEATURES: what QEMU says, or ok
  printf '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n' |
    timeout 60 qemu-system-x86_64 -machine q35 -accel tcg -nodefaults -display none -S -qmp stdio -cpu "max,$1" >"$work/out" 2>"$work/err" &&
    echo ok || sed 's/^[^:]*: //' "$work/err"
}
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
deb qemu-system-x86 1:7.2+dfsg-7+deb12u18+b3
PATH=$work/root/usr/bin:$PATH
is "one after the other, without what they need" "$(said hv-relaxed=on,hv-stimer=on,hv-stimer-direct=on,hv-evmcs=on)" ok
is "many" "$(said hv-vapic=on,hv-spinlocks=0x1fff,hv-runtime=on,hv-time=on,hv-synic=on,hv-frequencies=on,hv-tlbflush=on,hv-ipi=on)" ok
is "numbers of virtual CPUs" "$(said hv-vpindex=on)" "kernel doesn't allow setting HyperV VP_INDEX"
is "a name that is none" "$(said hv-nosuch=on | grep -o hv-nosuch | head -1)" hv-nosuch

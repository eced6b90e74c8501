#!/bin/bash
# qemu-img info reads an encrypted qcow2 without its passphrase; check, map and snapshot -l, which read no data either, do not.
#
# Expected: what works on the header and the tables alone, which are not encrypted, needs no key: info, check, map, snapshot -l.
#
# What happens: only info asks QEMU to open the image without what it does not need. The others end with "Parameter 'encrypt.key-secret'
# is required for cipher", though nothing they print depends on it, and --image-opts with the secret makes them work.
#
# Why it matters: a tool that looks at an image with info first concludes that it can check and list it; on a host without the
# passphrase neither works.
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
secret=secret,id=key,data=passphrase
for _ in {1..20}; do # on a busy machine: "Unable to get accurate CPU usage"
  qemu-img create -q --object $secret -f qcow2 -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=100 disk.qcow2 16M && break
done
works() { qemu-img "$@" >said 2>&1 && echo yes || echo "no: $(sed -n "s/.*Parameter 'encrypt.key-secret' is required.*/the secret is required/p" said | head -1)"; }
is "info" "$(works info disk.qcow2)" yes
for command in check map "snapshot -l"; do
  # shellcheck disable=SC2086 # two words
  is "$command" "$(works $command disk.qcow2)" "no: the secret is required"
done
is "check, with the secret" "$(works check --object $secret --image-opts driver=qcow2,file.filename=disk.qcow2,encrypt.key-secret=key)" yes

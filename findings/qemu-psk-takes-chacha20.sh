#!/bin/bash
# Between two QEMUs that share a key (tls-creds-psk) GnuTLS takes ChaCha20-Poly1305, on processors that have AES too.
#
# Expected: AES-256-GCM, which GnuTLS prefers, and takes for the same two programs with certificates.
#
# What happens: a pre-shared key belongs to one hash in TLS 1.3, here SHA-256. AES-256-GCM goes with SHA-384 and drops out, and the next
# in GnuTLS's order is ChaCha20-Poly1305, which nettle has in plain C; AES-128-GCM, which the processor does by itself, comes after it.
# Besides, a QEMU before 10.2 that listens looks for a Diffie-Hellman prime of 2048 bits first, with all else waiting, also where none is
# used; a file dh-params.pem beside the keys spares it that.
#
# Why it matters: migration and NBD with a shared key cost four times the processor time for encryption. `priority` of the client's object
# decides: NORMAL:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305.
set -euo pipefail
work=$(mktemp -d) && trap 'kill "$(cat "$work/pid")" 2>/dev/null || true; rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
for one in qemu-utils=1:7.2+dfsg-7+deb12u18+b3 libgnutls30=3.7.9-2+deb12u7; do
  is "${one%%=*}" "$(dpkg-query -W -f '${Version}' "${one%%=*}")" "${one#*=}"
done
cd "$work"
printf 'qemu:%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >keys.psk
truncate -s 1M disk
qemu-nbd --fork --pid-file=pid -t -f raw -k "$work/nbd" -x d --object tls-creds-psk,id=k,dir="$work",endpoint=server --tls-creds k disk
suite() { # WORDS OF THE OBJECT: what the client and the server agreed on
  GNUTLS_DEBUG_LEVEL=4 qemu-img info --object "tls-creds-psk,id=k,dir=$work,endpoint=client$1" \
    --image-opts driver=nbd,server.type=unix,server.path="$work/nbd",export=d,tls-creds=k 2>&1 |
    sed -n 's/.*Selected cipher suite: GNUTLS_//p'
}
is 'by itself' "$(suite '')" CHACHA20_POLY1305_SHA256
is 'told so' "$(suite ',priority=NORMAL:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305')" AES_128_GCM_SHA256

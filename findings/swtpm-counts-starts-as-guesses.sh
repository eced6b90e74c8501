#!/bin/bash
# swtpm 0.7.1 with libtpms 0.9.2: a machine whose power is cut three times can use its endorsement key no more.
#
# Expected: a TPM locks itself after wrong guesses of a password (dictionary attack). The endorsement key has none: its
# policy asks for the empty one of its hierarchy, and nobody guesses anything.
#
# What happens: the key's template leaves noDA out, so that each use of it marks the TPM; the next start, where no
# TPM2_Shutdown came before, then counts as a wrong guess (TPM 2.0 part 1, Dictionary Attack Protection). A virtual machine
# ends so whenever its power is cut. swtpm's TPMs lock after three (1000 s make one good), and from then on
# TPM2_ActivateCredential is refused by 0x921 (TPM_RC_LOCKOUT), which says nothing of the kind.
#
# Why it matters: whoever attests machines by credentials for their endorsement key fails after a few restarts. Where nobody
# has set lockoutAuth, TPM2_DictionaryAttackLockReset with the empty password helps.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download swtpm=0.7.1-1.3 swtpm-libs=0.7.1-1.3 libtpms0=0.9.2-3.1+deb12u1)
for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
LD_LIBRARY_PATH=$(find "$work/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
export LD_LIBRARY_PATH
cat >"$work/starts.py" <<'PYTHON'
import os, socket, subprocess, sys, time

work, binary = sys.argv[1:]
short = lambda *all: b"".join(one.to_bytes(2, "big") for one in all)
long = lambda *all: b"".join(one.to_bytes(4, "big") for one in all)
sized = lambda data: short(len(data)) + data
PASSWORD, NULL, ENDORSEMENT, LOCKOUT = 0x40000009, 0x40000007, 0x4000000B, 0x4000000A
POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
EK = short(1, 11) + long(0x300B2) + sized(POLICY) + short(6, 128, 0x43, 16, 2048) + long(0) + sized(bytes(256))
AK = short(0x23, 11) + long(0x50072) + sized(b"") + short(16, 0x18, 11, 3, 16) + sized(b"") * 2


def ask(tpm, code, handles, parameters, *sessions):
    auth = b"".join(long(one) + sized(b"") + b"\0" + sized(b"") for one in sessions)
    body = handles + (long(len(auth)) + auth if auth else b"") + parameters
    command = short(0x8002 if auth else 0x8001) + long(10 + len(body), code) + body
    while True:
        tpm.sendall(command)
        answer = tpm.recv(4096)
        found = int.from_bytes(answer[6:10], "big")
        if found != 0x922:  # TPM_RC_RETRY: it notes the use of the key first
            return found, answer[10:]


def key(tpm, template):
    _, said = ask(tpm, 0x131, long(ENDORSEMENT), sized(sized(b"") * 2) + sized(template) + sized(b"") + long(0), PASSWORD)
    public = said[10 : 10 + int.from_bytes(said[8:10], "big")]
    return said[:4], public


def activated(tpm):
    """The code of TPM2_ActivateCredential."""
    import hashlib

    (ek, _), (ak, public) = key(tpm, EK), key(tpm, AK)
    name = short(11) + hashlib.sha256(public).digest()
    _, said = ask(tpm, 0x168, ek, sized(b"x" * 32) + sized(name))  # TPM2_MakeCredential: blob and secret, sized
    _, session = ask(tpm, 0x176, long(NULL, NULL), sized(bytes(16)) + sized(b"") + b"\1" + short(16, 11))
    ask(tpm, 0x151, long(ENDORSEMENT) + session[:4], sized(b"") * 3 + long(0), PASSWORD)
    code, _ = ask(tpm, 0x147, ak + ek, said, PASSWORD, int.from_bytes(session[:4], "big"))
    for handle in (session[:4], ek, ak):
        ask(tpm, 0x165, b"", handle)
    return code


codes = []
for start in range(5):
    place = f"{work}/{start}"
    words = [binary, "socket", "--tpm2", "--tpmstate", f"dir={work}", "--server", f"type=unixio,path={place}"]
    swtpm = subprocess.Popen([*words, "--flags", "startup-clear"], stderr=subprocess.DEVNULL)
    tpm = socket.socket(socket.AF_UNIX)
    while tpm.connect_ex(place):
        time.sleep(0.05)
    codes.append(hex(activated(tpm)))
    if start < 4:
        swtpm.kill()
        swtpm.wait()
helped = ask(tpm, 0x139, long(LOCKOUT), b"", PASSWORD)[0], activated(tpm)
swtpm.kill()
print(*codes, *map(hex, helped))
PYTHON
is "five starts, power cut between them; the reset; once more" \
  "$(python3 "$work/starts.py" "$work" "$work/root/usr/bin/swtpm")" "0x0 0x0 0x0 0x921 0x921 0x0 0x0"

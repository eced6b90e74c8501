#!/bin/bash
# QEMU saves a machine that has a virtio-pmem device without the device, and says nothing.
#
# Expected: a device whose state cannot be saved keeps a migration from beginning ("State blocked by non-migratable device"), or is in the
# state as every other virtio device is.
#
# What happens: the migration is completed. The stream describes a section for every other device and none for virtio-pmem: neither its PCI
# configuration nor its queue.
#
# Why it matters: where the state is loaded the device is as after a reset, while the guest goes on with the queue it had: what it flushes is
# never answered, and whoever waits for an fsync waits for ever. Whatever suspends, moves or snapshots machines must refuse the device itself.
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
cd "$work"
truncate -s 16M memory
cat >ask.py <<'END'
import json, subprocess, sys

words = "qemu-system-x86_64 -M q35 -accel tcg -m 64M,maxmem=80M -nodefaults -display none -S -qmp stdio -device virtio-rng-pci"
words += " -object memory-backend-file,id=m,size=16M,mem-path=memory,share=on,align=2M -device virtio-pmem-pci,memdev=m"
qemu = subprocess.Popen(words.split(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(command, **arguments):
    qemu.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    qemu.stdin.flush()
    while True:
        answer = json.loads(qemu.stdout.readline())
        if "return" in answer or "error" in answer:
            return answer.get("return", answer.get("error"))


said("qmp_capabilities")
said("migrate", uri="exec:cat >state")
while (status := said("query-migrate").get("status")) not in ("completed", "failed"):
    pass
said("quit")
qemu.wait()
state = open("state", "rb").read()
described = state[state.rindex(b'{"configuration"') if b'{"configuration"' in state else state.rindex(b'{"page_size"') :]
print(status, *(str(name in described).lower() for name in (b"virtio-rng", b"pmem")))
END
is "how it ended; whether the state has virtio-rng, virtio-pmem" "$(python3 ask.py)" "completed true false"

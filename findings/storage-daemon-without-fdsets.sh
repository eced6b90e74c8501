#!/bin/bash
# qemu-storage-daemon takes /dev/fdset/N for what it is in QEMU, and has no way to fill such a set.
#
# Expected: the daemon has QEMU's block layer and QMP, so image files can be handed to it open, as to QEMU: a descriptor
# sent with `add-fd`, then `blockdev-add` of /dev/fdset/N.
#
# What happens: the name is understood, and opening it fails with "Function not implemented", since add-fd, getfd and the
# others belong to QEMU's own monitor and are not linked in. Nor may its chardevs be given a descriptor by name. A
# descriptor that is there from the start works by /dev/fd/N; unlike an fdset, that opens the file anew, so the daemon's
# user needs the right to open it.
#
# Why it matters: a launcher that gives QEMU a user id without any right to the images cannot put the storage daemon in
# the same place; whether it has fdsets has to be asked by add-fd in query-qmp-schema, not concluded from the block layer.
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
deb qemu-system-common 1:7.2+dfsg-7+deb12u18+b3
PATH=$work/root/usr/bin:$PATH
cd "$work"
qemu-storage-daemon --version | head -1
truncate -s 1M disk.raw
cat >ask.py <<'PY'
import json, os, socket, subprocess

ours, theirs = socket.socketpair()
disk = os.open("disk.raw", os.O_RDWR)
words = ["qemu-storage-daemon", "--chardev", f"socket,id=m,fd={theirs.fileno()}", "--monitor", "chardev=m,mode=control"]
daemon = subprocess.Popen(words, pass_fds=[theirs.fileno(), disk])
theirs.close()
stream = ours.makefile("rw")
stream.readline()

def ask(command, **arguments):
    print(json.dumps({"execute": command, "arguments": arguments}), file=stream, flush=True)
    return json.loads(stream.readline())

ask("qmp_capabilities")
names = {command["name"] for command in ask("query-commands")["return"]}
print("commands:", *(f"{name}={'yes' if name in names else 'no'}" for name in ("blockdev-add", "add-fd", "getfd")))
for path in ("/dev/fdset/1", f"/dev/fd/{disk}"):
    answer = ask("blockdev-add", **{"driver": "file", "filename": path, "node-name": path.split("/")[2]})
    print(f"{path.split('/')[2]}: {answer.get('error', {'desc': 'opened'})['desc']}")
ask("quit")
daemon.wait()
PY
python3 ask.py >seen
seen() { sed -n "s/^$1: //p" seen; }
is "commands" "$(seen commands)" "blockdev-add=yes add-fd=no getfd=no"
is "/dev/fdset/1" "$(seen fdset)" "Could not dup FD for /dev/fdset/1 flags 2: Function not implemented"
is "/dev/fd/N" "$(seen fd)" "opened"

#!/bin/bash
# QEMU does not read through a descriptor of an fdset that was opened for reading and writing.
#
# Expected: a descriptor opened O_RDWR can do all that one opened O_RDONLY can, so an image handed over with add-fd may be opened
# read-only or writable, as each node asks.
#
# What happens: QEMU looks for a descriptor with the very access mode it wants, and says "Permission denied" when the set has none, to
# root too, though the file is readable by all. With a second descriptor, opened O_RDONLY, in the same set both nodes open. A node with
# read-only and auto-read-only set is refused in the same way.
#
# Why it matters: the lower files of a chain are opened read-only, and writable when a commit or a stream writes to them. A launcher
# that hands over images has to send two descriptors for each such file, and will look for the fault in file modes.
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
cd "$work"
qemu-system-x86_64 --version | head -1
truncate -s 1M disk.raw
python3 - <<'PY' >seen
import json, os, socket, subprocess

ours, theirs = socket.socketpair()
words = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
words += ["-chardev", f"socket,id=m,fd={theirs.fileno()}", "-mon", "chardev=m,mode=control"]
qemu = subprocess.Popen(words, pass_fds=[theirs.fileno()])
theirs.close()
lines = ours.makefile("r")
lines.readline()

def ask(command, *descriptors, **arguments):
    message = json.dumps({"execute": command, "arguments": arguments}).encode()
    socket.send_fds(ours, [message], list(descriptors)) if descriptors else ours.sendall(message)
    return json.loads(lines.readline()).get("error", {"desc": "yes"})["desc"]

def opened(name, **options):
    print(f"{name}: {ask('blockdev-add', driver='file', filename='/dev/fdset/1', **{'node-name': name}, **options)}")

ask("qmp_capabilities")
ask("add-fd", os.open("disk.raw", os.O_RDWR), **{"fdset-id": 1})
opened("writable")
opened("read-only-of-rdwr", **{"read-only": True})
opened("auto-of-rdwr", **{"read-only": True, "auto-read-only": True})
ask("add-fd", os.open("disk.raw", os.O_RDONLY), **{"fdset-id": 1})
opened("read-only-of-both", **{"read-only": True})
ask("quit")
qemu.wait()
PY
seen() { sed -n "s/^$1: //p" seen; }
is "set has O_RDWR, opened writable" "$(seen writable)" yes
is "opened read-only" "$(seen read-only-of-rdwr)" "Could not dup FD for /dev/fdset/1 flags 0: Permission denied"
is "opened with auto-read-only" "$(seen auto-of-rdwr)" "Could not dup FD for /dev/fdset/1 flags 0: Permission denied"
is "set has O_RDONLY too, opened read-only" "$(seen read-only-of-both)" yes

#!/bin/bash
# QEMU accepts a stream backend on a descriptor sent with getfd, and never uses it.
#
# Expected: netdev_add of type stream with addr.type=fd and the name given to getfd works as that of the older type socket does, or
# is answered with an error.
#
# What happens: the answer is a success. The name is looked up later, by a thread that has no monitor and so no named descriptors; that
# fails, and the only trace is "connection error" in the text of `info network`. No event, no word in the log. A number
# (a descriptor that QEMU inherited) works, and so does type socket with the name, which has the same framing.
#
# Why it matters: this is how passt would be given to a card that is plugged in. The card appears, the guest asks for an address,
# and nothing answers; the launcher was told that all is well.
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
python3 - <<'PY' >seen
import json, socket, subprocess, time

ours, theirs = socket.socketpair()
inherited, _peer = socket.socketpair()
words = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
words += ["-chardev", f"socket,id=m,fd={theirs.fileno()}", "-mon", "chardev=m,mode=control"]
qemu = subprocess.Popen(words, pass_fds=[theirs.fileno(), inherited.fileno()], stderr=subprocess.STDOUT)
theirs.close()
lines = ours.makefile("r")
lines.readline()
events, peers = [], []

def ask(command, *descriptors, **arguments):
    message = json.dumps({"execute": command, "arguments": arguments}).encode()
    socket.send_fds(ours, [message], list(descriptors)) if descriptors else ours.sendall(message)
    while "event" in (answer := json.loads(lines.readline())):
        events.append(answer["event"])
    return answer

def backend(kind, name, value):
    print(f"{name}: {json.dumps(ask('netdev_add', type=kind, id=name, **value))}")

def send(name):
    here, there = socket.socketpair()
    peers.append(here)
    ask("getfd", there.fileno(), fdname=name)

ask("qmp_capabilities")
send("first")
backend("stream", "stream-by-name", {"addr": {"type": "fd", "str": "first"}})
send("second")
backend("socket", "socket-by-name", {"fd": "second"})
backend("stream", "stream-by-number", {"addr": {"type": "fd", "str": str(inherited.fileno())}})
time.sleep(1)
for line in ask("human-monitor-command", **{"command-line": "info network"})["return"].splitlines():
    name, _, words = line.partition(": ")
    print(f"{name} later: {words}")
print("events:", *events)
ask("quit")
qemu.wait()
PY
seen() { sed -n "s/^$1: //p" seen; }
is "stream by name" "$(seen stream-by-name)" '{"return": {}}'
is "a second later" "$(seen 'stream-by-name later' | tr -d '\r')" "index=0,type=stream,connection error"
is "socket by name" "$(seen socket-by-name)" '{"return": {}}'
grep later seen # the other two, to be fixed here from what is seen

#!/bin/bash
# QEMU can send an event to a monitor's client before its greeting.
#
# Expected: the first line a client reads is the greeting, and events come once it has negotiated capabilities, as QMP's
# specification has it.
#
# What happens: a monitor that was negotiated with by the client before keeps that mode until its thread has noticed the new client.
# What happens in the machine in that moment is told to the new one, as the first line it reads. Clients that take the first line
# for the greeting (most libraries do) end with an error about a missing "QMP".
#
# Why it matters: launchers open a monitor for one command, again and again, and events are most frequent while a machine starts.
# Measured here: a few in 100,000 sessions beside a monitor that stops and continues a machine without pause.
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
import collections, json, os, socket, subprocess, threading, time

words = ["qemu-system-x86_64", "-machine", "none", "-display", "none", "-nodefaults"]
for name in ("asked", "busy"):
    words += ["-qmp", f"unix:{name},server=on,wait=off"]
qemu = subprocess.Popen(words)
while not os.path.exists("busy"):
    time.sleep(0.01)

def client(name):
    here = socket.socket(socket.AF_UNIX)
    here.connect(name)
    return here, here.makefile("rb")

def negotiate(here, lines):
    here.sendall(b'{"execute": "qmp_capabilities"}\n')
    lines.readline()

def stop_and_continue():
    here, lines = client("busy")
    lines.readline()
    negotiate(here, lines)
    while True:
        here.sendall(b'{"execute": "stop"}\n{"execute": "cont"}\n' * 20)
        answers = 0
        while answers < 40:
            if not (line := lines.readline()):
                return
            answers += b'"return"' in line

threading.Thread(target=stop_and_continue, daemon=True).start()
first, end = collections.Counter(), time.monotonic() + 300
while not any(one != "QMP" for one in first) and time.monotonic() < end:
    here, lines = client("asked")
    message = json.loads(lines.readline())
    first[next(iter({"QMP", "event"} & message.keys()), "other")] += 1
    if "event" in message:
        then = json.loads(lines.readline())
        print(f"first: the event {message['event']}; then: {'the greeting' if 'QMP' in then else then}")
    negotiate(here, lines)
    lines.close()
    here.close()
qemu.kill()
print("first lines of sessions:", dict(first))
PY
cat seen
is "an event came before a greeting" "$(grep -q '^first: the event' seen && echo yes || echo no)" yes

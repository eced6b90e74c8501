#!/bin/bash
# The guest agent says that a command has not exited, long after its process is gone, while anything else holds its output.
#
# Expected: `exited` of guest-exec-status tells of the process whose number guest-exec gave.
#
# What happens: with capture-output the agent waits for both pipes to close as well. A command that leaves a background
# process behind (`service x start`, `sleep 9 &`) is reported as running, without output, until that one ends too, though
# its process was reaped at once and its number may already be another's. Without capture-output the same command has
# exited at once.
#
# Why it matters: who runs commands through the agent and waits for `exited` waits for every daemon a script starts, and
# must not signal the number meanwhile. Output and an early end are to be had only by redirecting to files in the guest.
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
deb qemu-guest-agent 1:7.2+dfsg-7+deb12u18+b3
PATH=$work/root/usr/sbin:/usr/sbin:$PATH
cd "$work"
qemu-ga --version
# The agent needs no machine: it serves this host on a socket.
qemu-ga --method unix-listen --path "$work/agent" --statedir "$work" --pidfile "$work/pid" --logfile "$work/log" &
agent=$!
trap 'kill $agent; rm -rf "$work"' EXIT
until [ -S agent ]; do sleep 0.1; done
python3 - <<'PY' >seen
import json, os, socket, time

line = socket.socket(socket.AF_UNIX)
line.connect("agent")
stream = line.makefile("rw")

def ask(command, **arguments):
    print(json.dumps({"execute": command, "arguments": arguments}), file=stream, flush=True)
    return json.loads(stream.readline())["return"]

for capture in (False, True):
    script = "sleep 4 & echo begun; exit 3"
    pid = ask("guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": capture})["pid"]
    time.sleep(1)
    there = os.path.exists(f"/proc/{pid}")
    status = ask("guest-exec-status", pid=pid)
    print(f"{capture} 1s: process {'there' if there else 'gone'}, {json.dumps(status, sort_keys=True)}")
    if not status["exited"]:
        time.sleep(4)
        print(f"{capture} 5s: {json.dumps(ask('guest-exec-status', pid=pid), sort_keys=True)}")
PY
seen() { sed -n "s/^$1: //p" seen; }
is "output not captured, after a second" "$(seen 'False 1s')" 'process gone, {"exitcode": 3, "exited": true}'
is "output captured, after a second" "$(seen 'True 1s')" 'process gone, {"exited": false}'
is "output captured, when the background process has ended" "$(seen 'True 5s')" \
  '{"exitcode": 3, "exited": true, "out-data": "YmVndW4K", "out-truncated": false}'

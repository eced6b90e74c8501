#!/bin/bash
# The guest agent of QEMU 10.0 drops output beyond 16 MiB and says "out-truncated": false; where all is there it says nothing.
#
# Expected: out-truncated of guest-exec-status is true where output was dropped, and false (as that of 7.2 has it) where not.
#
# What happens: the member is there exactly where something was dropped, and its value is false then. The agents of 7.2 and of
# 11.1 say true and false as the documentation has it.
#
# Why it matters: who reads the value takes the first 16 MiB of a command's output for all of it. That the member is there
# tells, for this agent; for others its value does. As much as is kept at most, with a false beside it, may be either.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
# Debian 12's backports, by a configuration of its own: the host's is not touched.
# shellcheck disable=SC2016 # the names are apt's
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 'Component: main' | head -1)
mkdir -p "$work"/{lists,archives}/partial "$work"/parts
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} bookworm-backports main" >"$work/sources.list"
: >"$work/status"
own=(-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/parts" -o Dir::State::status="$work/status"
  -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" -o APT::Sandbox::User=root)
apt-get "${own[@]}" -qq update
(cd "$work" && apt-get "${own[@]}" -qq download 'qemu-guest-agent=1:10.0.2+ds-2+deb13u1~bpo12+1' && dpkg-deb -x qemu-guest-agent_*.deb root)
PATH=$work/root/usr/sbin:$PATH
cd "$work"
qemu-ga --version
# The agent needs no machine: it serves this host on a socket.
qemu-ga --method unix-listen --path "$work/agent" --statedir "$work" --pidfile "$work/pid" --logfile "$work/log" &
agent=$!
trap 'kill $agent; rm -rf "$work"' EXIT
until [ -S agent ]; do sleep 0.1; done
python3 - <<'PY' >seen
import base64, json, socket, time

line = socket.socket(socket.AF_UNIX)
line.connect("agent")
stream = line.makefile("rw")

def ask(command, **arguments):
    print(json.dumps({"execute": command, "arguments": arguments}), file=stream, flush=True)
    return json.loads(stream.readline())["return"]

for more in (0, 1):
    words = ["-c", str((16 << 20) + more), "/dev/zero"]
    pid = ask("guest-exec", path="/usr/bin/head", arg=words, **{"capture-output": True})["pid"]
    while not (status := ask("guest-exec-status", pid=pid))["exited"]:
        time.sleep(0.1)
    print(f"{more}: {len(base64.b64decode(status.pop('out-data')))} bytes, {json.dumps(status, sort_keys=True)}")
PY
seen() { sed -n "s/^$1: //p" seen; }
is "16 MiB printed" "$(seen 0)" '16777216 bytes, {"exitcode": 0, "exited": true}'
is "16 MiB and a byte printed" "$(seen 1)" '16777216 bytes, {"exitcode": 0, "exited": true, "out-truncated": false}'

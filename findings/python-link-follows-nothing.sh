#!/bin/bash
# Python 3.11's os.link with follow_symlinks=True links the symbolic link itself, unless a folder's descriptor is given too.
#
# Expected: follow_symlinks=True, the default, makes a second name of the file that a symbolic link leads to.
#
# What happens: without src_dir_fd or dst_dir_fd link(2) is called, which on Linux follows nothing; with one of them it is
# linkat(2) with AT_SYMLINK_FOLLOW. An absolute path ignores the folder, so that any descriptor serves.
#
# Why it matters: a file is safely made without a name (O_TMPFILE), written down, and named as the last step, by linking
# /proc/self/fd/N: done as the documentation says it fails with "Invalid cross-device link", the link lying in /proc.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
cd "$work"
touch file && ln -s file link
is 'Python' "$(/usr/bin/python3 -c 'import sys; print(*sys.version_info[:2])')" '3 11'
is 'follow_symlinks=True' "$(/usr/bin/python3 -c '
import os
os.link("link", "a", follow_symlinks=True)
print("a link" if os.path.islink("a") else "a file")')" 'a link'
is 'with a folder too' "$(/usr/bin/python3 -c '
import os
os.link("link", "b", src_dir_fd=os.open(".", os.O_RDONLY), follow_symlinks=True)
print("a link" if os.path.islink("b") else "a file")')" 'a file'
is 'a file without a name' "$(/usr/bin/python3 -c '
import os
made = os.open(".", os.O_TMPFILE | os.O_RDWR)
try:
    os.link(f"/proc/self/fd/{made}", "c", follow_symlinks=True)
except OSError as error:
    print(error.strerror)')" 'Invalid cross-device link'

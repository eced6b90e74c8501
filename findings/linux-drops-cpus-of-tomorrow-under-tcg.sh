#!/bin/bash
# Linux 6.12 as Debian 13 has it leaves an emulated guest no room for CPUs that are plugged in later; 6.1 of Debian 12 does.
#
# Expected: with -smp 1,maxcpus=4 the guest finds one CPU and three that may come (its firmware's table, MADT, lists all four, three
# of them switched off), and takes one that device_add plugs in.
#
# What happens: under QEMU's own emulation, processors that the table has switched off count as not there at all, and nothing is
# said about them. One that is plugged in is answered with "Unable to map lapic to logical cpu number", and not used.
#
# Why it matters: CPU hot plug that is tried on an emulated guest (in CI, without /dev/kvm) fails with new kernels, while QEMU reports
# success: query-hotpluggable-cpus and the ACPI slots show the CPU, and the guest's /sys/devices/system/cpu/possible says 0.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
is() { # WHAT SEEN EXPECTED
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { printf 'CHANGED, it was: %s\n' "$3"; exit 1; }
}
qemu-system-x86_64 --version | head -1
kernel() { # SUITE VERSION PACKAGE: prints the path of the kernel; an apt configuration of its own, the host's is not touched
  local at=$work/$1
  mkdir -p "$at"/{lists,archives}/partial "$at"/parts
  # shellcheck disable=SC2016 # the names are apt's
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $1 main" >"$at/sources.list"
  : >"$at/status"
  own=(-o Dir::Etc::sourcelist="$at/sources.list" -o Dir::Etc::sourceparts="$at/parts" -o Dir::State::status="$at/status"
    -o Dir::State::lists="$at/lists" -o Dir::Cache="$at" -o Dir::Cache::archives="$at/archives" -o APT::Sandbox::User=root)
  apt-get "${own[@]}" -qq update
  (cd "$at" && apt-get "${own[@]}" -qq download "$3=$2" >&2 && dpkg-deb --fsys-tarfile "$3"_*.deb | tar -x --wildcards './boot/vmlinuz-*')
  echo "$at"/boot/vmlinuz-*
}
cpus() { # KERNEL: what it says about CPUs; it has no root to start from, and ends
  timeout 300 qemu-system-x86_64 -accel tcg -machine q35 -m 512M -smp 1,maxcpus=4 -nographic -no-reboot -net none \
    -kernel "$1" -append 'console=ttyS0 panic=-1' </dev/null | tr -d '\r' | grep -oE 'Allowing [0-9].*CPUs'
}
is "6.1.176-1" "$(cpus "$(kernel bookworm 6.1.176-1 linux-image-6.1.0-50-cloud-amd64)")" 'Allowing 4 CPUs, 3 hotplug CPUs'
is "6.12.117-1" "$(cpus "$(kernel trixie 6.12.117-1 linux-image-6.12.117+deb13-cloud-amd64)")" 'Allowing 1 present CPUs plus 0 hotplug CPUs'

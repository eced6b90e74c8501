"""Which QEMU is used, and whether it is one with a known trap."""

from __future__ import annotations

from collections.abc import Callable

from tinamou.doctor.finding import Finding, bad, good, unknown, warning
from tinamou.doctor.inspection import Inspection
from tinamou.facts.qemu import numbered
from tinamou.parts.display import SPICE_PACKAGE, has_spice

TITLE = "QEMU"


def check(seen: Inspection) -> Finding:
    """Compares the binary with the list of known-bad versions and combinations."""
    facts = seen.qemu()
    if facts is None:
        return unknown("no QEMU for this host's architecture was examined")
    shown = f"{facts.binary} {numbered(facts.version)}, accelerators {', '.join(facts.accels) or 'none'}"
    if not has_spice(facts):
        shown += f", no SPICE (that is in package {SPICE_PACKAGE})"
    if not facts.accels:
        return bad(f"{shown}: no accelerator", "install the full package, for example qemu-system-x86")
    missing = [name for name in ("type:virtio-blk-pci", "type:virtio-net-pci", "type:virtio-rng-pci") if not facts.has(name)]
    if missing and facts.types:
        return warning(
            f"{shown}: built without {', '.join(name.partition(':')[2] for name in missing)}", "install a full build"
        )
    traps = [text for feature, text in _TRAPS if not facts.has(feature)]
    traps += [text for here, feature, text in _COMBINATIONS if here(seen) and not facts.has(feature)]
    return (
        warning(f"{shown}: {'; '.join(traps)}", "use a newer QEMU where this matters")
        if traps and facts.types
        else good(shown)
    )


def _active(module: str, parameter: str) -> Callable[[Inspection], bool]:
    return lambda seen: seen.files.read(f"/sys/module/{module}/parameters/{parameter}") in ("Y", "1")


def _without_vhost(seen: Inspection) -> bool:
    return "/dev/vhost-net" not in seen.facts.devices


_TRAPS = (
    ("netdev:stream", "older than 7.2: no stream network backend, so no passt"),
    ("property:memory-backend-file.share", "memory backends cannot be shared: no instant fork"),
    ("option:sandbox", "built without seccomp: QEMU runs without the filter of system calls"),
)
"""(feature, what it means that it is missing)."""

_COMBINATIONS = (
    (
        _active("kvm_amd", "sev_snp"),
        "type:sev-snp-guest",
        "this host can run SEV-SNP guests, this QEMU cannot (9.1 and later)",
    ),
    (_active("kvm_intel", "tdx"), "type:tdx-guest", "this host can run TDX guests, this QEMU cannot (10.1 and later)"),
    (
        _without_vhost,
        "property:memory-backend-file.rom",
        "older than 8.2, on a host without /dev/vhost-net: write networks with net, or with vhost=off in qemu_args",
    ),
)
"""(what this host has, feature, what it means that this QEMU lacks it)."""

"""Firmware as its descriptor describes it (source: QEMU docs/interop/firmware.json)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Firmware:
    """One firmware a QEMU package installed; ``template`` is the pristine variable store, empty where it has none."""

    descriptor: str
    description: str
    interfaces: frozenset[str]
    device: str
    executable: str
    format: str
    template: str
    targets: tuple[tuple[str, tuple[str, ...]], ...]
    features: frozenset[str]

    def serves(self, arch: str, machine: str) -> bool:
        """Whether one of its targets names ``arch`` and a pattern that ``machine`` matches (``pc-q35-*``)."""
        from fnmatch import fnmatchcase

        return any(
            arch == target and any(fnmatchcase(machine, pattern) for pattern in patterns)
            for target, patterns in self.targets
        )

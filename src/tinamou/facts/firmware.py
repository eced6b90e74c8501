"""Firmware as its descriptor describes it (source: QEMU docs/interop/firmware.json)."""

from __future__ import annotations

from fnmatch import fnmatchcase

from tinamou.late import dataclass


@dataclass(frozen=True)
class Firmware:
    """One firmware a QEMU package installed; ``template`` is the pristine variable store, empty where it has none.

    ``device`` is how it is mapped: ``flash``, ``kernel`` (``-kernel``) or ``memory`` (``-bios``). ``mode`` applies to flash:
    ``split`` (code and variables apart), ``combined`` or ``stateless``. ``descriptor`` is the path of the descriptor, empty
    for firmware that is known by its file name alone.
    """

    descriptor: str
    description: str
    interfaces: frozenset[str]
    device: str
    executable: str
    format: str
    template: str
    targets: tuple[tuple[str, tuple[str, ...]], ...]
    features: frozenset[str]
    mode: str = "split"

    def serves(self, arch: str, machine: str) -> bool:
        """Whether one of its targets names ``arch`` and a pattern that ``machine`` matches (``pc-q35-*``)."""
        return any(
            arch == target and any(fnmatchcase(machine, pattern) for pattern in patterns)
            for target, patterns in self.targets
        )

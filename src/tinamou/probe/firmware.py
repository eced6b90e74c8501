"""Which firmware is installed, read from the descriptors QEMU packages ship (source: QEMU docs/interop/firmware.json)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from tinamou.facts.firmware import Firmware
from tinamou.late import dataclass

__all__ = ["FirmwareScan", "probe_firmware"]

_FOLDERS = ("usr/share/qemu/firmware", "etc/qemu/firmware")

_KNOWN = (
    Firmware(
        descriptor="",
        description="U-Boot in supervisor mode, loaded by OpenSBI; starts EFI boot loaders",
        interfaces=frozenset({"uefi", "uboot"}),
        device="kernel",
        executable="/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf",
        format="raw",
        template="",
        targets=(("riscv64", ("virt", "virt-*")),),
        features=frozenset(),
    ),
)
"""Firmware without descriptor that is the only one of its architecture (package u-boot-qemu).

OpenSBI and SeaBIOS need no entry: QEMU loads them by itself.
"""


@dataclass(frozen=True)
class FirmwareScan:
    """The installed firmware, first choice first, and a note for each descriptor that had to be left out."""

    firmware: tuple[Firmware, ...]
    notes: tuple[str, ...]


def probe_firmware(root: Path = Path("/"), data_dirs: Iterable[str] = (), config_home: str | None = None) -> FirmwareScan:
    """Every usable descriptor below ``root``, in the order of their file names.

    A later folder overrides a descriptor of the same name in an earlier one, an empty file masks it: first the
    ``firmware`` folders in QEMU's own data directories (``QemuFacts.data_dirs``), then /usr/share/qemu/firmware,
    /etc/qemu/firmware and $XDG_CONFIG_HOME/qemu/firmware. What no file backs is left out with a note.
    """
    found: list[Firmware] = []
    notes: list[str] = []
    for path in _descriptors(root, data_dirs, config_home):
        try:
            firmware = _read(path, root)
        except (OSError, ValueError, TypeError, KeyError) as damaged:
            notes.append(f"{path}: not a usable firmware descriptor: {type(damaged).__name__}: {damaged}")
            continue
        missing = [name for name in (firmware.executable, firmware.template) if name and not _below(root, name).is_file()]
        if missing:
            notes.append(f"{path}: names {missing[0]}, which does not exist")
        else:
            found.append(firmware)
    described = {firmware.executable for firmware in found}
    known = [one for one in _KNOWN if one.executable not in described and _below(root, one.executable).is_file()]
    return FirmwareScan((*found, *known), tuple(notes))


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _descriptors(root: Path, data_dirs: Iterable[str], config_home: str | None) -> list[Path]:
    home = config_home or os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    folders = [f"{folder}/firmware" for folder in data_dirs]
    folders += [*_FOLDERS, f"{home}/qemu/firmware"]
    chosen: dict[str, Path] = {}
    for folder in folders:
        try:
            names = [path.name for path in _below(root, folder).iterdir() if path.suffix == ".json"]
        except OSError:
            continue
        chosen.update((name, _below(root, folder) / name) for name in names)
    return [chosen[name] for name in sorted(chosen) if not _masks(chosen[name])]


def _masks(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return False


_Json = Mapping[str, object]


def _read(path: Path, root: Path) -> Firmware:
    data = cast("_Json", json.loads(path.read_bytes()))
    mapping = cast("_Json", data["mapping"])
    flash = mapping["device"] == "flash"
    executable = cast("Mapping[str, str]", mapping["executable"] if flash else mapping)
    template = cast("Mapping[str, str]", mapping.get("nvram-template", {}))
    return Firmware(
        descriptor="/" + str(path.relative_to(root)),
        description=_text(data.get("description", "")),
        interfaces=frozenset(map(_text, cast("list[object]", data["interface-types"]))),
        device=_text(mapping["device"]),
        executable=_text(executable["filename"]),
        format=_text(executable.get("format", "raw")),
        template=_text(template.get("filename", "")),
        targets=tuple(map(_target, cast("list[_Json]", data["targets"]))),
        features=frozenset(map(_text, cast("list[object]", data["features"]))),
        mode=_text(mapping.get("mode", "split")),
    )


def _target(target: _Json) -> tuple[str, tuple[str, ...]]:
    return _text(target["architecture"]), tuple(map(_text, cast("list[object]", target["machines"])))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text was expected, not {value!r}")
    return value

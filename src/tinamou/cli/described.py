"""From an image's name, or a machine file, and what was said about it on the command line, to a spec."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tinamou import fields
from tinamou.errors import SpecError
from tinamou.machine.assignments import assign, listed, table_of
from tinamou.parts.disk import DiskSpec
from tinamou.spec import MachineSpec, load_spec

__all__ = ["assignment", "described", "disk_of"]

_LARGEST = 1 << 20
_GZIP = b"\x1f\x8b"
_SWITCHES = {"tpm": "tpm=true", "secure_boot": "boot.secure=true", "no_agent": "seed.agent=none"}
"""Options without a value, and what they set."""
_SEEDS = ("user_data", "ignition", "combustion")
"""Options that name a file whose text is the field of that name of the seed."""
_OTHERWISE = frozenset({"disk", "net", "share", "publish", "pci", "usb", "pmem", "set", *_SEEDS, *_SWITCHES})
"""Options that are not simply the field of their name."""


def described(image: str, given: Mapping[str, Any], *, apart: bool = False) -> MachineSpec:
    """A spec from an image's name, or from a TOML file, with the options given laid over it. Raises SpecError.

    The options are those of `MachineOptions`, as written. ``apart`` leaves it without a network where none is asked for.
    """
    data: dict[str, Any] = _read(image) if image.endswith(".toml") else {"image": image} if image else {}
    data |= {name: value for name, value in given.items() if name not in _OTHERWISE and value is not None}
    if disks := given.get("disk"):
        data["disk"] = [*listed(data.get("disk", [])), *(table_of(text) for text in disks)]
    if nets := given.get("net"):
        data["net"] = [] if tuple(nets) == ("none",) else [table_of(text) for text in nets]
    if shares := given.get("share"):
        data["share"] = [*listed(data.get("share", [])), *(_absolute(text) for text in shares)]
    if ports := given.get("publish"):
        data["net"] = _published(data, ports)
    for name in ("pci", "usb", "pmem"):
        if devices := given.get(name):
            data[name] = [*listed(data.get(name, [])), *(table_of(text) for text in devices)]
    if apart and not {"net", "nics"} & data.keys():
        data["net"] = []
    assigned = [assignment for option, assignment in _SWITCHES.items() if given.get(option)]
    if texts := {name: _text(path) for name in _SEEDS if (path := given.get(name))}:
        seed = data.get("seed", {})
        data["seed"] = {**seed, **texts} if isinstance(seed, dict) else seed
    assign(data, (*assigned, *given.get("set", ())))
    return load_spec(data, source=image if image.endswith(".toml") else "the machine's description")


def assignment(option: str, value: str) -> str:
    """What an option of `MachineOptions` is for ``tinamou set``, on a shell's line: ``--disk size=1G`` → ``disk+=size=1G``.

    ``value`` is as written, anything for an option without one. The name of a machine is no field of this kind.
    """
    if option in _SWITCHES:
        return _SWITCHES[option]
    if option == "set":
        return shlex.quote(value)
    if option in _SEEDS:
        return f'seed.{option}="$(cat {shlex.quote(value)})"'
    if (option, value) == ("net", "none"):
        return shlex.quote("net=[]")
    if option == "publish":
        return shlex.quote(f"net[0].forward+={_forward(value)}")
    if option == "share":
        value = _absolute(value)
    if option == "usb" and isinstance(table := table_of(value), dict):
        value = f"{{{', '.join(f'{key} = {json.dumps(one, ensure_ascii=False)}' for key, one in table.items())}}}"
    return shlex.quote(f"{option}{'+=' if option in _OTHERWISE else '='}{value}")


def _published(data: dict[str, Any], ports: Sequence[str]) -> list[Any]:
    """The networks with more ports that lead in through the first one, which there is then. Raises SpecError."""
    nets = listed(data.pop("nics", data.get("net", [{}])))
    if not nets:
        fix = "leave one of the two out"
        raise SpecError("ports cannot lead into a machine without a network", fix=fix)
    first = dict(nets[0]) if isinstance(nets[0], Mapping) else {"type": nets[0]}
    first["forward"] = [*listed(first.get("forward", [])), *map(_forward, ports)]
    return [first, *nets[1:]]


def _forward(port: str) -> str:
    """A port as docker writes it, ``5353:53/udp``, as a machine file does: ``udp:5353:53``."""
    ports, slash, protocol = port.partition("/")
    return f"{protocol}:{ports}" if slash else port


def disk_of(text: str) -> DiskSpec:
    """One disk as ``--disk`` has it: a path, or settings. Raises SpecError with every problem."""
    found, problems = fields.load(DiskSpec, table_of(text), "disk")
    if found is None:
        raise SpecError("the disk is not understood", problems=problems)
    return found


def _absolute(share: str) -> str:
    """The same with the folder of the host as an absolute path."""
    folder, colon, rest = share.partition(":")
    return f"{os.path.abspath(folder)}{colon}{rest}"  # noqa: PTH100


def _read(path: str) -> dict[str, Any]:
    from tinamou.system.toml import toml_file

    return toml_file(path, "is no machine file", see="docs/reference/spec.md")


def _text(path: str) -> str:
    """A document of the user's, unpacked where it is packed, as for clouds that bound its length. Raises SpecError."""
    from tinamou.system.plain_file import read_given

    data = read_given(path, _LARGEST)
    if data.startswith(_GZIP):
        data = _unpacked(data, path)
    if len(data) > _LARGEST:
        raise SpecError(f"{path} is no first-boot document", why=f"it is larger than {_LARGEST >> 20} MiB")
    try:
        return data.decode()
    except ValueError as error:
        raise SpecError(f"{path} is no text", why=str(error), fix="name a file in UTF-8") from error


def _unpacked(data: bytes, path: str) -> bytes:
    from tinamou.system.codecs import CodecError, decompress

    try:
        return decompress(data, _LARGEST + 1)
    except CodecError as error:
        raise SpecError(f"{path} cannot be unpacked", why=str(error), fix="pack it again, or name it unpacked") from error

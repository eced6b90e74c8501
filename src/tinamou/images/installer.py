"""Installers on optical discs: which kernel and initial RAM disk they start, and how answers are given to them.

Sources: the Debian GNU/Linux Installation Guide, B.2; the Anaconda boot options.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images import cpio
from tinamou.late import dataclass

__all__ = ["Installer", "kind_of", "prepared"]

_LARGEST = 1 << 30
_MOST_ANSWERS = 4 << 20


@dataclass(frozen=True)
class Installer:
    """A family: where kernel and initial RAM disk are on its discs, the answers it takes, and where it looks for them."""

    name: str
    answers: str
    places: tuple[tuple[str, str], ...]
    file: str
    cmdline: str


_KNOWN = (
    Installer(
        "Debian installer",
        "preseed",
        (
            ("/install.amd/vmlinuz", "/install.amd/initrd.gz"),
            ("/install.a64/vmlinuz", "/install.a64/initrd.gz"),
            ("/linux", "/initrd.gz"),
        ),
        "preseed.cfg",
        "auto=true priority=critical file=/preseed.cfg DEBIAN_FRONTEND=text",
    ),
    Installer(
        "Anaconda",
        "kickstart",
        (("/images/pxeboot/vmlinuz", "/images/pxeboot/initrd.img"),),
        "ks.cfg",
        "inst.ks=file:/ks.cfg inst.text inst.repo=cdrom",
    ),
)

_SIGNS: Mapping[str, str] = {
    "preseed": r"^\s*d-i\s+\S+",
    "kickstart": r"^%packages\b|^(?:text|cmdline|graphical|autopart|rootpw|clearpart)\b",
    "autoinstall": r"^autoinstall:|^#cloud-config",
    "autounattend": r"urn:schemas-microsoft-com:unattend",
    "ignition": r'"ignition"\s*:\s*\{',
}
"""By which lines answers of a kind are known."""


def kind_of(answers: bytes) -> str:
    """The kind of a file of answers. Raises ImageError for none that is known."""
    text = answers.decode(errors="replace")
    found = next((kind for kind, sign in _SIGNS.items() if re.search(sign, text, re.M)), "")
    if not found:
        why = "it has no line that a preseed file or a kickstart file would have"
        raise ImageError("these answers are for no installer that is known", why=why)
    return found


def prepared(iso: Path, answers: bytes, folder: Path) -> tuple[Path, Path, str]:
    """The disc's kernel, its initial RAM disk with the answers in it, written into ``folder``, and the kernel's arguments.

    Raises ImageError for answers that this disc's installer does not take, or a disc of none that is known.
    """
    kind = kind_of(answers)
    takers = [one for one in _KNOWN if one.answers == kind]
    if not takers:
        fix = "give them as a disc of their own (--disk answers.iso,interface=cdrom), or by --user-data"
        raise ImageError(f"an installer is not given {kind} answers by its kernel here", fix=fix)
    for one in takers:
        for kernel, initrd in one.places:
            if (found := _read(iso, kernel, initrd)) is not None:
                more = cpio.archive({one.file: cpio.file(answers)})
                (folder / "kernel").write_bytes(found[0])
                (folder / "initrd").write_bytes(found[1] + bytes(-len(found[1]) % 4) + more)
                return folder / "kernel", folder / "initrd", one.cmdline
    looked = ", ".join(kernel for one in takers for kernel, _ in one.places)
    raise ImageError(f"{iso.name} is no disc of an installer that takes {kind}", why=f"none of these is on it: {looked}")


def _read(iso: Path, *names: str) -> list[bytes] | None:
    """Files of a disc by their Rock Ridge or Joliet names; None where one of them is missing."""
    import pycdlib
    from pycdlib.pycdlibexception import PyCdlibException

    disc = pycdlib.PyCdlib()
    try:
        disc.open(str(iso))
    except (PyCdlibException, OSError) as error:
        raise ImageError(f"{iso} cannot be read as a disc", why=str(error)) from error
    try:
        way = "rr_path" if disc.has_rock_ridge() else "joliet_path" if disc.has_joliet() else "iso_path"
        found = []
        for name in names:
            out = io.BytesIO()
            if disc.get_record(**{way: name}).get_data_length() > _LARGEST:
                raise ImageError(f"{name} on {iso.name} is too large for a kernel")
            disc.get_file_from_iso_fp(out, **{way: name})
            found.append(out.getvalue())
        return found
    except PyCdlibException:
        return None
    finally:
        disc.close()

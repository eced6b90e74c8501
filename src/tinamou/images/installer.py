"""Installers on optical discs: how answers are given to them, by their own kernel, the firmware, or a disc beside theirs.

Sources: the Debian GNU/Linux Installation Guide, B.2; the Anaconda boot options; Ubuntu's autoinstall reference; Microsoft's
"Windows Setup Automation Overview" (answer files on removable media); combustion's README; coreos-installer's customization.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinamou.errors import ImageError
from tinamou.images import cpio
from tinamou.late import dataclass
from tinamou.system.iso import build_iso

__all__ = ["MOST_ANSWERS", "Installer", "Start", "kind_of", "prepared"]

_LARGEST = 1 << 30
MOST_ANSWERS = 4 << 20
"""Bytes of a file of answers."""


@dataclass(frozen=True)
class Installer:
    """A family that is started by its kernel: where that and the initial RAM disk are, and the answers it takes.

    ``file`` is what the answers are called in the initial RAM disk; without it they come on a NoCloud seed.
    """

    name: str
    answers: str
    places: tuple[tuple[str, str], ...]
    file: str
    cmdline: str


@dataclass(frozen=True)
class Start:
    """How an installer is started so that it finds its answers, in one of these ways."""

    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    user_data: str = ""
    """What cloud-init in the installer is given."""
    ignition: str = ""
    combustion: str = ""
    """What the firmware hands on, to what is installed too."""
    disc: str = ""
    """A disc with the answers, beside the installer's."""


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
        "auto=true priority=critical file=/preseed.cfg DEBIAN_FRONTEND=text TERM=dumb DEBCONF_DROP_TRANSLATIONS=1",
        # Plain lines, where another terminal on a serial port gets GNU screen with its clock (rootskel, S70menu); and
        # English alone: each part it loads brings seventy languages, minutes under emulation, and nobody is asked.
    ),
    Installer(
        "Anaconda",
        "kickstart",
        (("/images/pxeboot/vmlinuz", "/images/pxeboot/initrd.img"),),
        "ks.cfg",
        "inst.ks=file:/ks.cfg inst.text inst.repo=cdrom",
    ),
    Installer(
        "Ubuntu's installer",
        "autoinstall",
        (("/casper/vmlinuz", "/casper/initrd"), ("/casper/hwe-vmlinuz", "/casper/hwe-initrd")),
        "",
        "autoinstall",
    ),
)

_COREOS = ("/images/pxeboot/vmlinuz", "/images/pxeboot/rootfs.img")

_SIGNS: Mapping[str, str] = {
    "combustion": r"\A#!(?:.*\n)*?#\s*combustion:",
    "autounattend": r"urn:schemas-microsoft-com:unattend",
    "ignition": r'"ignition"\s*:\s*\{',
    "preseed": r"^\s*d-i\s+\S+",
    "kickstart": r"^%packages\b|^(?:text|cmdline|graphical|autopart|rootpw|clearpart)\b",
    "autoinstall": r"^autoinstall:",
}
"""By which lines answers of a kind are known; the first kind that fits."""


def kind_of(answers: bytes) -> str:
    """The kind of a file of answers. Raises ImageError for none that is known."""
    wide = answers[:2] in (b"\xff\xfe", b"\xfe\xff")  # as Windows' own tools write
    text = answers.decode("utf-16" if wide else "utf-8", errors="replace")
    found = next((kind for kind, sign in _SIGNS.items() if re.search(sign, text, re.M)), "")
    if not found:
        *most, last = sorted(_SIGNS)
        why = f"it has no line that a file for {', '.join(most)} or {last} would have"
        raise ImageError("these answers are for no installer that is known", why=why)
    return found


def prepared(iso: Path, answers: bytes, folder: Path) -> Start:
    """How the disc is started with the answers; what that needs is written into ``folder``.

    Raises ImageError for answers that this disc's installer does not take, or a disc of none that is known.
    """
    if len(answers) > MOST_ANSWERS:
        raise ImageError("these answers are too large", why=f"no installer's have more than {MOST_ANSWERS >> 20} MiB")
    kind = kind_of(answers)
    if kind == "autounattend":
        build_iso(folder / "answers.iso", "ANSWERS", {"autounattend.xml": answers})
        return Start(disc=str(folder / "answers.iso"))
    if kind == "ignition" and _has(iso, *_COREOS):
        reason = "this disc's system hands none on to what it installs"
        made = f"coreos-installer iso customize --dest-device /dev/vda --dest-ignition FILE -o own.iso {iso.name}"
        fix = f"{made}, and install own.iso"
        raise ImageError("an Ignition configuration is written into a disc of Fedora CoreOS", why=reason, fix=fix)
    if kind == "ignition":
        return Start(ignition=_text(answers))
    if kind == "combustion":
        return Start(combustion=_text(answers))
    return _by_kernel(kind, iso, answers, folder)


def _by_kernel(kind: str, iso: Path, answers: bytes, folder: Path) -> Start:
    takers = [one for one in _KNOWN if one.answers == kind]
    for one in takers:
        for kernel, initrd in one.places:
            if (found := _read(iso, kernel, initrd)) is not None:
                more = cpio.archive({one.file: cpio.file(answers)}) if one.file else b""
                (folder / "kernel").write_bytes(found[0])
                (folder / "initrd").write_bytes(found[1] + bytes(-len(found[1]) % 4) + more)
                user_data = "" if one.file else _for_cloud_init(_text(answers))
                return Start(str(folder / "kernel"), str(folder / "initrd"), one.cmdline, user_data)
    looked = ", ".join(kernel for one in takers for kernel, _ in one.places)
    raise ImageError(f"{iso.name} is no disc of an installer that takes {kind}", why=f"none of these is on it: {looked}")


def _for_cloud_init(text: str) -> str:
    """Answers as cloud-init takes them: the file on a disc needs no first line, user-data does."""
    return text if text.startswith("#cloud-config") else f"#cloud-config\n{text}"


def _text(answers: bytes) -> str:
    """The answers as text. Raises ImageError for bytes that are none."""
    try:
        return answers.decode()
    except UnicodeDecodeError as error:
        raise ImageError("these answers are no text", why=str(error), fix="write them as UTF-8") from error


def _has(iso: Path, *names: str) -> bool:
    """Whether all these files are on a disc."""
    with _opened(iso) as (disc, way):
        return _on(disc, way, names)


def _read(iso: Path, *names: str) -> list[bytes] | None:
    """Files of a disc by their Rock Ridge or Joliet names; None where one of them is missing."""
    found = []
    with _opened(iso) as (disc, way):
        for name in names if _on(disc, way, names) else ():
            out = io.BytesIO()
            if disc.get_record(**{way: name}).get_data_length() > _LARGEST:
                raise ImageError(f"{name} on {iso.name} is too large for a kernel")
            disc.get_file_from_iso_fp(out, **{way: name})
            found.append(out.getvalue())
    return found or None


def _on(disc: Any, way: str, names: Sequence[str]) -> bool:
    from pycdlib.pycdlibexception import PyCdlibException

    try:
        return all(disc.get_record(**{way: name}) is not None for name in names)
    except PyCdlibException:
        return False


@contextlib.contextmanager
def _opened(iso: Path) -> Iterator[tuple[Any, str]]:
    """A disc, and which names of its files are asked for. Raises ImageError for what is none, or damaged."""
    import pycdlib
    from pycdlib.pycdlibexception import PyCdlibException

    disc = pycdlib.PyCdlib()
    try:
        disc.open(str(iso))
        yield disc, "rr_path" if disc.has_rock_ridge() else "joliet_path" if disc.has_joliet() else "iso_path"
    except (PyCdlibException, OSError) as error:
        raise ImageError(f"{iso} cannot be read as a disc", why=str(error)) from error
    finally:
        with contextlib.suppress(PyCdlibException):
            disc.close()

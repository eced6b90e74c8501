"""Find the QEMU binary of an architecture and learn what it offers, from its own mouth and only once per binary."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import ProbeError
from tinamou.facts.qemu import QemuFacts
from tinamou.facts.stored import qemu_from, to_plain
from tinamou.probe import cache
from tinamou.probe.questions import FINGERPRINT, Question, questions

__all__ = ["choosing", "find_binary", "is_script", "probe_qemu"]

_ELSEWHERE = ("/usr/local/bin", "/usr/libexec", "/usr/lib/qemu", "/opt/homebrew/bin", "/run/current-system/sw/bin")


_chosen: contextvars.ContextVar[str] = contextvars.ContextVar("chosen", default="")


@contextlib.contextmanager
def choosing(binary: str) -> Iterator[None]:
    """In the block that one is found, said as in ``$TINAMOU_QEMU``; empty changes nothing."""
    mark = _chosen.set(binary or _chosen.get())
    try:
        yield
    finally:
        _chosen.reset(mark)


def find_binary(arch: str) -> str:
    """The path of the QEMU that emulates ``arch`` (QEMU's name for it, ``x86_64``).

    ``$TINAMOU_QEMU`` names one binary, a directory of binaries, or a pattern with ``{arch}``; without it,
    qemu-system-ARCH from PATH is taken (or qemu-kvm, where the distribution calls it so). Raises ProbeError.
    """
    request = _chosen.get() or os.environ.get("TINAMOU_QEMU", "")
    if request:
        return _wished(request, arch)
    names = [f"qemu-system-{arch}"]
    if os.uname().machine == arch:
        names.append("qemu-kvm")
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_ELSEWHERE]
    for name in names:
        for folder in filter(None, folders):
            candidate = Path(folder) / name
            if os.access(candidate, os.X_OK) and candidate.is_file():
                return str(candidate)
    raise ProbeError(
        f"qemu-system-{arch} was not found",
        why="it is neither in PATH nor where distributions put it; TINAMOU_QEMU is not set",
        fix=f"install it ({_PACKAGES.get(arch, 'Debian, Ubuntu: apt install qemu-system')}) or point TINAMOU_QEMU at it",
    )


_PACKAGES = {
    "x86_64": "Debian, Ubuntu: apt install qemu-system-x86; Fedora: dnf install qemu-system-x86; macOS: brew install qemu",
    "aarch64": "Debian, Ubuntu: apt install qemu-system-arm; Fedora: dnf install qemu-system-aarch64; macOS: brew",
    "riscv64": "Debian 12: apt install qemu-system-misc; Debian 13: qemu-system-riscv; Fedora: qemu-system-riscv",
}


def _wished(request: str, arch: str) -> str:
    path = Path(request.replace("{arch}", arch)).expanduser().absolute()
    if path.is_dir():
        path = path / f"qemu-system-{arch}"
    _check_file(path, f"TINAMOU_QEMU={request}")
    named = path.name.removeprefix("qemu-system-")
    if named != path.name and "-" not in named and named != arch and "." not in named:
        raise _other_architecture(str(path), named, arch)
    return str(path)


def _check_file(path: Path, asked_by: str) -> None:
    if not path.exists():
        raise ProbeError(
            f"{path} does not exist",
            why=f"{asked_by} asks for it",
            fix="name an existing QEMU binary",
        )
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ProbeError(
            f"{path} is not an executable file", why=f"{asked_by} asks for it", fix=f"chmod +x {path}, or name a QEMU binary"
        )


def _other_architecture(binary: str, found: str, asked: str) -> ProbeError:
    return ProbeError(
        f"{binary} emulates {found}, not {asked}",
        why="one binary emulates one architecture, and this one was named for all of them",
        fix="write {arch} in TINAMOU_QEMU where the architecture goes, or name a directory of binaries",
    )


def probe_qemu(binary: str, arch: str = "", *, cached: bool = True) -> QemuFacts:
    """What ``binary`` offers; with ``arch``, that it emulates that architecture. Raises ProbeError.

    Believes what was stored for the same binary (path, size, mtime, inode) unless ``cached`` is False.
    """
    _check_file(Path(binary), "the choice of the QEMU binary")
    identity = [*cache.binary_identity(binary), FINGERPRINT]
    facts = cache.load("qemu", binary, identity, qemu_from) if cached else None
    if facts is None:
        facts = _interview(binary)
        cache.store("qemu", binary, identity, to_plain(facts))
    if arch and facts.arch != arch:
        raise _other_architecture(binary, facts.arch, arch)
    return facts


def is_script(binary: str) -> bool:
    """Whether the file is a script, which becomes QEMU."""
    with open(binary, "rb") as file:  # noqa: PTH123
        return file.read(2) == b"#!"


def _interview(binary: str) -> QemuFacts:
    from tinamou.probe.interview import MINIMAL, ask
    from tinamou.probe.schema import qemu_facts
    from tinamou.system.loaded import folders_of

    help_text, folders = _Aside(binary, "-help"), _Aside(binary, "-L", "help")
    told = ask(binary, questions())
    if "query-version" not in told.answers or "query-target" not in told.answers:
        why = "; ".join(told.refused.values())
        raise ProbeError(f"{binary} does not say what it is", why=why, fix="use QEMU 7.2 or later")
    if "types" not in told.answers:
        told.answers.update(ask(binary, [Question("query-cpu-definitions", "query-cpu-definitions", {})]).answers)
    data_dirs = tuple(folders.text().splitlines())
    return qemu_facts(binary, told, help_text.text(), data_dirs, folders_of([binary, *MINIMAL], data_dirs))


class _Aside:
    """A help text of the binary, read while the interview goes on; empty when it gives none."""

    def __init__(self, *argv: str) -> None:
        from threading import Thread

        self._argv = argv
        self._text = ""
        self._thread = Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        from tinamou.system.exec import CommandError, TimeoutExpired, run

        with contextlib.suppress(CommandError, TimeoutExpired, OSError):
            self._text = run(self._argv, timeout=60)

    def text(self) -> str:
        """The text, once the command has ended."""
        self._thread.join()
        return self._text

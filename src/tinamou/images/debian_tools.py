"""Installing a Debian system into a tarball with mmdebstrap, as root or in a user namespace."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.errors import ImageError
from tinamou.images.packages import host_acquire, require_tools
from tinamou.system.exec import CommandError, run, run_whole

if TYPE_CHECKING:
    from tinamou.images.debian import Port
    from tinamou.images.gpt import Identities

__all__ = ["as_root", "bootstrap", "require"]

_TOOLS = ("mmdebstrap", "apt-get", "dpkg", "dpkg-deb", "tar", "mkfs.ext4", "mkfs.vfat", "mcopy", "qemu-img")
_HERE = Path(__file__).parent


def require(architecture: str) -> None:
    """Raise ImageError, with what to install, when this host cannot build a system of a Debian architecture."""
    require_tools(_TOOLS, "building a Debian guest")
    if os.geteuid() != 0:
        require_tools(["newuidmap", "unshare"], "building a Debian guest without root")
    own = run(["dpkg", "--print-architecture"]).strip()
    if architecture == own:
        return
    interpreter = {"arm64": "qemu-aarch64", "amd64": "qemu-x86_64", "riscv64": "qemu-riscv64"}[architecture]
    if not _registered(interpreter):
        raise ImageError(
            f"a Debian guest for {architecture} cannot be built on {own} here",
            why=f"its packages run their set-up programs, and {interpreter} is not registered with the kernel (binfmt_misc)",
            fix="apt-get install -y qemu-user-static binfmt-support, and mount binfmt_misc; or use --arch of this host",
        )


def _registered(interpreter: str) -> bool:
    entry = Path("/proc/sys/fs/binfmt_misc") / interpreter
    return entry.exists() and "enabled" in entry.read_text()


def as_root(argv: Sequence[str]) -> list[str]:
    """The command as it sees itself as root: as it is for root, else in a user namespace with the user's range of uids."""
    return list(argv) if os.geteuid() == 0 else ["unshare", "--map-root-user", "--map-auto", "--", *argv]


_APART = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
_FIRST = ("sh", "-c", '"$@"; exit $?', "sh")
"""Process 1 of a PID namespace, which takes in what others leave behind."""


def _apart(argv: Sequence[str]) -> list[str]:
    """The command in mount and PID namespaces of its own, for root: else mmdebstrap mounts in the host's.

    So nothing stays mounted, and no process stays, when it is killed. Any other user's makes namespaces by itself. Root that
    may make none (in a container) may not mount either.
    """
    if os.geteuid() != 0:
        return list(argv)
    try:
        run([*_APART, "true"])
    except CommandError:
        return list(argv)
    return [*_APART, *_FIRST, *argv]


def bootstrap(
    suite: str, port: Port, ids: Identities, *, include: Sequence[str], sources: Sequence[str], work: Path
) -> Path:
    """Install the system and return it as a tarball. Raises ImageError."""
    files, options, root = work / "files.tar", work / "apt-options", work / "root.tar"
    _pack(files)
    options.write_text("".join(f"{line}\n" for line in host_acquire()))
    (work / "tmp").mkdir(mode=0o755)
    words = f"{ids.root} {ids.esp} {suite} {port.console}"
    customize = f'chroot "$1" /bin/sh /root/customize.sh {words} && rm "$1/root/customize.sh"'
    argv = [
        "mmdebstrap",
        "--mode=auto",
        "--variant=minbase",
        f"--architectures={port.debian}",
        f"--include={','.join(include)}",
        f"--aptopt={options}",
        "--dpkgopt=force-unsafe-io",
        '--aptopt=Acquire::Languages "none"',
        f"--essential-hook=tar-in {files} /",
        f"--customize-hook={customize}",
        suite,
        str(root),
        *sources,
    ]
    try:
        run_whole(_apart(argv), environment={"TMPDIR": str(work / "tmp")})
    except CommandError as error:
        raise ImageError(
            f"mmdebstrap could not install Debian {suite}",
            why=next((line for line in error.stderr.splitlines() if line.startswith(("E:", "error:"))), ""),
            evidence={"mmdebstrap": "\n".join(error.stderr.splitlines()[-20:])},
        ) from error
    return root


def _pack(target: Path) -> None:
    """The files that go into the system before its kernel is configured, owned by root."""
    with tarfile.open(target, "w") as archive:
        tree = _HERE / "debian_root"
        for path in sorted(tree.rglob("*")):
            _add(archive, str(path.relative_to(tree)), path)
        _add(archive, "root/customize.sh", _HERE / "debian_customize.sh")


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(name)
    if path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
        return
    data = path.read_bytes()
    member.size, member.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
    archive.addfile(member, io.BytesIO(data))

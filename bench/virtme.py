"""The guest virtme-ng makes: its own initramfs, the host's files as root, Debian's full kernel."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tinamou.system.paths import cache_dir

__all__ = ["Virtme"]

_META = "linux-image-amd64"


@dataclass(frozen=True)
class Virtme:
    """A venv with virtme-ng, a kernel it can use, and the QEMU to run."""

    venv: Path
    kernel: Path
    binary: str
    differs: str = (
        "Debian's full kernel and virtme-ng's own initramfs (the cloud kernel has no 9p, and Debian 12 no virtiofsd it "
        "takes), the host's files as root by 9p; the clock stops when the command's output is on the console"
    )

    @classmethod
    def prepare(cls, stack: ExitStack, scratch: Path, binary: str, kernel: Path, initrd: Path) -> Virtme | str:
        """Install virtme-ng and unpack a kernel, once; a reason where that cannot be."""
        del stack, scratch, kernel, initrd
        folder = cache_dir() / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        missing = [tool for tool in ("apt-get", "dpkg", "depmod", "busybox") if not shutil.which(tool)]
        if missing:
            return f"needs {', '.join(missing)}"
        try:
            return cls(_venv(folder), _kernel(folder), binary)
        except (subprocess.CalledProcessError, OSError, StopIteration) as error:
            said = getattr(error, "stderr", b"") or b""
            return f"{error}: {said.decode(errors='replace')[-200:]}"

    def answered(self) -> float:
        """Seconds from ``vng`` to the output of a command; virtme-ng wants a terminal, so it gets one."""
        words = [str(self.venv / "bin/vng"), "--verbose", "--run", str(self.kernel), "--disable-kvm", "--qemu", self.binary]
        words += ["--memory", "512M", "--cpus", "1", "--", "echo", "answered"]
        ours, theirs = pty.openpty()
        environment = os.environ | {"PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}"}
        began = time.perf_counter()
        process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        try:
            heard = b""
            while b"\nanswered" not in heard:
                heard = heard[-(1 << 14) :] + os.read(ours, 1 << 12)
            return time.perf_counter() - began
        except OSError as error:
            raise RuntimeError(heard[-300:].decode(errors="replace")) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
            os.close(ours)


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(words, check=True, capture_output=True, cwd=cwd)
    return done.stdout.decode()


def _venv(folder: Path) -> Path:
    venv = folder / "virtme-ng"
    if not (venv / "bin/vng").exists():
        _run("/usr/bin/python3", "-m", "venv", venv)
        _run(venv / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "virtme-ng")
    return venv


def _kernel(folder: Path) -> Path:
    """The newest kernel of the distribution, unpacked with its modules; nothing is installed on the host."""
    depends = _run("apt-cache", "depends", "--important", _META).splitlines()
    package = next(line.split()[-1] for line in depends if "linux-image-" in line and line.lstrip().startswith("Depends"))
    root = folder / package
    if not root.exists():
        work = folder / f"{package}.part"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        _run("apt-get", "download", "-q", package, cwd=work)
        _run("dpkg", "-x", next(work.glob("*.deb")), work / "root")
        _run("depmod", "-b", work / "root", package.removeprefix("linux-image-"))
        (work / "root").rename(root)
        shutil.rmtree(work)
    return next((root / "boot").glob("vmlinuz-*"))

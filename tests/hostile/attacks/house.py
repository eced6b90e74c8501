"""The machines, processes, files and services among which an attack takes place, started by the real tinamou command."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

from attacks.attacker import House

USER = 64_250
"""A user id no account has, for machines of a user without rights."""
SECRET = "a secret word"
MEMORY = 256 << 20
SOURCES = Path(__file__).resolve().parents[3] / "src"


@dataclasses.dataclass
class Owner:
    """Who starts machines, and where they are: root or a user, with a state directory of their own."""

    uid: int
    home: Path
    cache: Path
    label: str

    @property
    def environment(self) -> dict[str, str]:
        places = {"STATE": self.home / "s", "RUN": self.home / "r", "CACHE": self.cache}
        kept = {name: os.environ[name] for name in ("TINAMOU_QEMU", "LC_ALL") if name in os.environ}
        own = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self.home)}
        own["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH"))))
        return kept | own | {f"TINAMOU_{name}": str(path) for name, path in places.items()}

    def start(self, *words: str, python: str = "") -> subprocess.Popen[str]:
        """The tinamou command with these words, under way."""
        command = [sys.executable, *(("-c", python) if python else ("-m", "tinamou")), *words]
        return subprocess.Popen(
            command,
            user=self.uid, group=self.uid, extra_groups=[], cwd="/", env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def tinamou(self, *words: str, seconds: float = 300) -> str:
        """What the command says, which must end well. Raises RuntimeError."""
        process = self.start(*words)
        try:
            said, complaints = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"tinamou {' '.join(words)}: not done after {seconds} s") from None
        if process.returncode:
            raise RuntimeError(f"tinamou {' '.join(words)}: exit status {process.returncode}: {complaints}")
        return said

    def machine(self, name: str) -> Path:
        """A machine's folder."""
        return self.home / "s/machines" / name

    def processes(self, *words: str) -> dict[str, int]:
        """The processes that have one of these among their words, by program; of two the younger."""
        found = {}
        for entry in sorted(int(path.name) for path in Path("/proc").glob("[0-9]*")):
            with contextlib.suppress(OSError):
                said = Path(f"/proc/{entry}/cmdline").read_text(errors="replace").split("\0")
                program = Path(said[0]).name.removesuffix(".x86_64")
                if any(word in text for word in words for text in said[1:]) and not program.startswith("python"):
                    found["qemu" if program.startswith("qemu-system") else program] = entry
        return found

    def qemu(self, name: str) -> int:
        """The QEMU of a machine."""
        return self.processes(f"{self.machine(name)}/")["qemu"]


class Neighbourhood:
    """Owners with machines, and what their processes and services are; all of it ends with the block."""

    def __init__(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="ta", dir="/tmp"))
        self.scratch.chmod(0o755)
        self._processes: list[subprocess.Popen[str]] = []
        self._owners: list[Owner] = []
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for owner in self._owners:
            with contextlib.suppress(RuntimeError):
                names = owner.tinamou("ls", "-q").split()
                if names:
                    owner.tinamou("rm", "-f", *names)
                kept = [line.split()[0] for line in owner.tinamou("checkpoints", "ls").splitlines()[1:]]
                if kept:
                    owner.tinamou("checkpoints", "rm", "-f", *kept)
        for process in self._processes:
            process.kill()
            process.communicate()
        self._ends.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def owner(self, label: str, uid: int = 0) -> Owner:
        """Root, or a user; a user has a cache of their own, in which are the guests root has built."""
        from tinamou.system.paths import cache_dir

        home = self.scratch / label
        home.mkdir(mode=0o755)
        for name, mode in (("s", 0o755), ("r", 0o700), ("share", 0o755)):
            (home / name).mkdir(mode=mode)
        cache = cache_dir()
        if uid:
            cache = home / "c"
            (cache / "images").mkdir(parents=True)
            source = cache_dir() / "images/tiny" / platform.machine()
            target = cache / "images/tiny" / platform.machine()
            target.mkdir(parents=True)
            for link in source.glob("current-*"):
                shutil.copytree(source / link.readlink(), target / link.readlink(), dirs_exist_ok=True)
                (target / link.name).symlink_to(link.readlink())
            for path in (home, *home.rglob("*")):
                os.chown(path, uid, uid, follow_symlinks=False)
        made = Owner(uid, home, cache, label)
        self._owners.append(made)
        return made

    def process(self, owner: Owner, *words: str) -> int:
        """A process of an owner's that does nothing."""
        code = "import time; time.sleep(3600)"
        environment = {"PATH": "/usr/bin:/bin", "WORD": SECRET}
        process = subprocess.Popen(
            [sys.executable, "-IS", "-c", code, *words],
            user=owner.uid, group=owner.uid, extra_groups=[], cwd="/", env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(0.05)
        return self.kept(process).pid

    def kept(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """A process that is ended with all this."""
        self._processes.append(process)
        return process

    def _served(self, kind: int, address: object, family: int = socket.AF_INET) -> socket.socket:
        """A socket of this process, whoever connects to it is accepted and let go."""
        made = self._ends.enter_context(socket.socket(family, kind))
        made.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            made.listen(64)

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        made.accept()[0].close()

            threading.Thread(target=accept, daemon=True).start()
        return made

    def house(self, owner: Owner, name: str, neighbours: dict[str, tuple[Path, int]], *places: str, qemu: int = 0) -> House:
        """What is around a machine of an owner's. ``places`` are words of helpers; ``qemu`` stands in for one."""
        secret, readable = owner.home / "secret", owner.home / "readable"
        for path, mode in ((secret, 0o600), (readable, 0o644)):
            path.write_text(SECRET)
            path.chmod(mode)
            os.chown(path, owner.uid, owner.uid)
        reached, abstract = owner.home / f"{name}.sock", f"attacked-{self.scratch.name}-{name}"
        self._served(socket.SOCK_STREAM, str(reached), socket.AF_UNIX)
        self._served(socket.SOCK_STREAM, f"\0{abstract}", socket.AF_UNIX)
        reached.chmod(0o777)
        helpers = owner.processes(f"{owner.machine(name)}/", *places)
        qemu = helpers.pop("qemu", 0) or qemu
        return House(
            scratch=owner.home, secret=secret, readable=readable, victim=self.process(owner, "--secret", SECRET),
            sacrifice=lambda: self.process(owner), own=owner.machine(name), own_uid=Path(f"/proc/{qemu}").stat().st_uid,
            helpers=helpers, neighbours=neighbours, image=_kernel(owner), sockets=reached, abstract=abstract,
            tcp=self._served(socket.SOCK_STREAM, ("127.0.0.1", 0)), udp=self._served(socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            qemu=qemu, process=qemu, memory=MEMORY,
        )  # fmt: skip


def _kernel(owner: Owner) -> Path:
    """A file of the image cache: the kernel of the tiny guest, or what is there in its place."""
    kernels = owner.cache.glob(f"images/tiny/{platform.machine()}/current-*/vmlinuz")
    return next((path.resolve() for path in kernels), owner.home / "readable")


RUN = ("run", "-d", "--memory", "256M")


def of_root(around: Neighbourhood) -> tuple[Owner, dict[str, House]]:
    """Root's machines: ``whole`` has every helper, ``fork`` was forked; a third is in another state directory."""
    root, other = around.owner("root"), around.owner("other")
    cards = ("--net", "type=passt", "--net", f"type=bridge,network=ta{os.getpid()}")
    whole = ("--tpm", "--disk", "size=64M", *cards, "--share", f"{root.home}/share")
    return root, _machines(around, root, other, whole, f"{root.home}/s/networks/")


def of_user(around: Neighbourhood) -> tuple[Owner, dict[str, House]]:
    """The machines of a user without rights, who has another beside it, as another user of the host has one."""
    user, other = around.owner("user", USER), around.owner("stranger", USER + 1)
    return user, _machines(around, user, other, ("--tpm", "--disk", "size=64M", "--net", "type=passt"))


def _machines(around: Neighbourhood, owner: Owner, other: Owner, whole: tuple[str, ...], *places: str) -> dict[str, House]:
    owner.tinamou(*RUN, "--name", "whole", *whole)
    owner.tinamou(*RUN, "--name", "fork", "--warm")
    other.tinamou(*RUN, "--name", "whole")
    stranger = (other.machine("whole"), other.qemu("whole"))
    beside = {name: (owner.machine(name), owner.qemu(name)) for name in ("whole", "fork")}
    return {
        "whole": around.house(owner, "whole", {"same": beside["fork"], "other": stranger}, *places),
        "fork": around.house(owner, "fork", {"same": beside["whole"], "other": stranger}),
    }


def reader(around: Neighbourhood, owner: Owner) -> int:
    """A process in the place of qemu-img: shut in by what shuts that in, with one file to read; its number."""
    code = (
        "import subprocess, sys\nfrom tinamou.system.shut_in import ENVIRONMENT, shut_in\n"
        "words = shut_in(['sleep', '3600'], reads=[sys.argv[1]])\n"
        "process = subprocess.Popen(words, env=ENVIRONMENT)\nprint(process.pid, flush=True)\nprocess.wait()"
    )
    given = owner.home / "given"
    given.write_bytes(b"an image")
    started = around.kept(owner.start(str(given), python=code))
    assert started.stdout is not None
    first = int(started.stdout.readline())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{first}/comm").read_text() != "sleep\n":
        if time.monotonic() > deadline:
            raise RuntimeError("the reader did not start")
        time.sleep(0.02)
    return first

"""What a command costs before and after its real work, beside Python itself, virsh, and an earlier build of tinamou."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.boot import Guest, by_hand, the_guest
from bench.framework import Bar, Difference, Missing, Table, Way, Within
from bench.guest_line import PROCESSOR, ended
from bench.libvirt import Libvirt
from tinamou.system.paths import cache_dir

__all__ = ["OLD", "ROOT", "Build", "at_rest", "both_builds", "older", "tables", "timed"]

ROOT = Path(__file__).parent.parent
OLD = "eed7bb9"
"""The build that the bars are about."""
PYTHON, VIRSH, ALONE = "python -c pass", "virsh list --all", "the stand-in by hand"
MANY = 1000
LINES = (
    "--version", "--help", "run --help", "ls", "show at-rest", "snapshot ls at-rest", "exec web -- true", "pause web",
    "resume web",
)  # fmt: skip
WHOLE = f"ls, {MANY:,} machines"
_FIRST = """
import sys, time
import tinamou
sys.stdin.readline()
begin = time.perf_counter()
from tinamou import Machine
with Machine() as vm:
    vm.run(["true"])
    print(time.perf_counter() - begin, flush=True)
"""
_Run = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Build:
    """A build of tinamou: where its modules are, the command, a stand-in for QEMU that speaks as its guests do.

    ``environment`` gives it state and cache of its own: two builds need not understand each other's files.
    """

    name: str
    paths: Sequence[Path]
    command: Path
    standin: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def row(self, line: str) -> str:
        """The name of the row in which this build does something."""
        return f"{self.name}: {line}" if self.name else line

    def timed(self, line: str, **more: str) -> Way:
        """Way: the command with these words, to its exit."""
        words = [str(self.command), *line.split()]
        return Way(self.row(line), lambda: timed(words, {**self.environment, **more}))


def timed(words: Sequence[str], environment: Mapping[str, str]) -> Mapping[str, float]:
    """The clock's time and the processor's of a program, to its exit. Raises RuntimeError where that says that it failed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stderr is not None
    said = process.stderr.read()
    computed = ended(process)
    taken = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: {said.decode()[-300:]}")
    return {"": taken, PROCESSOR: computed}


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """Commands by themselves; runs with a guest of constant time; real ones."""
    guest = the_guest(scratch)
    builds, missing = both_builds(guest, scratch)
    return [_lines(stack, guest, builds, missing), _shares(stack, guest, builds), _real(builds)]


# ── builds ──


def both_builds(guest: Guest, scratch: Path) -> tuple[list[Build], list[Missing]]:
    """This tree's, and that of `OLD`; what is missing where that cannot be had."""
    builds = [_built(guest, scratch, "", [ROOT / "src"], ROOT / "bench")]
    try:
        return [*builds, _built(guest, scratch, OLD, *older(scratch))], []
    except (OSError, subprocess.CalledProcessError) as error:
        return builds, [Missing(f"the build {OLD}", str(error))]


def _built(guest: Guest, scratch: Path, name: str, paths: Sequence[Path], bench: Path) -> Build:
    folder = scratch / f"build-{name or 'here'}"
    folder.mkdir()
    standin, command = folder / "qemu-system-x86_64", folder / "tinamou"
    standin.write_text((bench / "standin.py").read_text().replace("@REAL@", guest.binary))
    lines = [f"#!{sys.executable}", "import sys", f"sys.path[:0] = {[str(path) for path in paths]}"]
    command.write_text("\n".join([*lines, "from tinamou.cli.main import main", "sys.exit(main())\n"]))
    for file in (standin, command):
        file.chmod(0o755)
    environment = {"TINAMOU_STATE": str(folder / "state"), "TINAMOU_RUN": str(folder / "run")}
    if name:
        environment["TINAMOU_CACHE"] = str(cache_dir() / f"bench-{name}")
    build = Build(name, paths, command, standin, environment)
    subprocess.run([sys.executable, "-m", "compileall", "-q", *paths], check=False)
    timed([str(command), "run", "--", "true"], environment)  # its image is there from now on
    return build


def older(scratch: Path) -> tuple[list[Path], Path]:
    """The earlier build's sources, and the packages it needs that this one does not; its bench."""
    tree, packages = scratch / OLD, scratch / f"{OLD}-packages"
    tree.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", OLD], check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", tree], check=True, input=archive)
    needed = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["dependencies"]
    there = {_plain(one.metadata["Name"]) for one in importlib.metadata.distributions()}
    if lacking := [one for one in needed if _plain(re.split(r"[^\w.-]", one)[0]) not in there]:
        uv = shutil.which("uv", path=f"{os.environ.get('PATH', '')}:{ROOT}/.cache/uv/bin") or "uv"
        words = [uv, "pip", "install", "-q", "--python", sys.executable, "--target", packages, *lacking]
        subprocess.run(words, check=True, capture_output=True)
    return [tree / "src", packages], tree / "bench"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ── commands ──


def _lines(stack: ExitStack, guest: Guest, builds: Sequence[Build], missing: list[Missing]) -> Table:
    ways = [Way(PYTHON, lambda: timed([sys.executable, "-c", "pass"], {}))]
    libvirt = Libvirt.prepare(stack, guest.scratch, guest.binary, guest.kernel, guest.initrd)
    if isinstance(libvirt, str):
        missing.append(Missing(VIRSH, libvirt))
    else:
        ways.append(Way(VIRSH, lambda: timed(["virsh", "-q", "-c", libvirt.uri, "list", "--all"], {})))
    for build in builds:
        _started(stack, build)
        at_rest(Path(build.environment["TINAMOU_STATE"]), 1)
        many = Path(build.environment["TINAMOU_STATE"]).with_name("many")
        at_rest(many, MANY)
        ways += [build.timed(line) for line in LINES]
        ways += [
            replace(build.timed(line, TINAMOU_STATE=str(state)), name=build.row(name))
            for line, state, name in (
                ("ls", many, WHOLE),
                ("show at-rest", many, f"show at-rest, {MANY:,} machines"),
                ("snapshot ls at-rest", many, f"snapshot ls at-rest, {MANY:,} machines"),
                ("ls", _empty(many.with_name("none")), "ls, no machine"),
            )
        ]
    time.sleep(1.1)  # what was changed a moment ago is read again
    bars: list[Bar] = [Within(line, 3, PYTHON) for line in LINES[:3]]
    bars += [Within(line, 2.5, VIRSH) for line in LINES[3:]]
    bars += [Within(f"{line}, {MANY:,} machines", 1.2, line) for line in ("show at-rest", "snapshot ls at-rest")]
    bars.append(Within(WHOLE, 1.2, "ls, no machine"))
    notes = ["web runs, with a stand-in for QEMU that answers at once; at-rest is a machine that does not run."]
    return Table("a command by itself", ways, PYTHON, notes, missing, bars=bars)


def _started(stack: ExitStack, build: Build) -> None:
    """A machine that runs, and answers at once from a second after its start on."""
    environment = {**build.environment, "TINAMOU_QEMU": str(build.standin)}
    timed([str(build.command), "run", "-d", "--name", "web", "--net", "none"], environment)
    stack.callback(timed, [str(build.command), "rm", "-f", "web"], environment)


def _empty(state: Path) -> Path:
    state.mkdir(mode=0o755)
    return state


def at_rest(state: Path, count: int) -> None:
    """Machines that were started once, as any build reads them; one is called ``at-rest``."""
    for name in ("at-rest", *(f"m{number:04}" for number in range(count - 1))):
        folder = state / "machines" / name
        folder.mkdir(parents=True)
        folder.chmod(0o711)
        spec = {"image": "tiny", "name": name, "disk": [{"size": "10G"}]}
        record = {"name": name, "directory": str(folder), "spec": spec, "created": time.time(), "image": "tiny"}
        for file, text in (("machine.json", json.dumps({**record, "arch": "x86_64", "accel": "tcg"})), ("serial.log", "")):
            (folder / file).write_text(text)
            (folder / file).chmod(0o600)


# ── runs ──


def _shares(stack: ExitStack, guest: Guest, builds: Sequence[Build]) -> Table:
    """Runs with a guest of constant time, less that stand-in started by hand."""
    run, first = "run -- true", "import tinamou; Machine()"
    ways, own, bars = [], [], list[Bar]()
    for build in builds:
        environment = {"TINAMOU_QEMU": str(build.standin)}
        ways += [build.timed(run, **environment), Way(build.row(first), _in_python(stack, build, environment))]
        own += [Difference(f"own share: {build.row(line)}", build.row(line), ALONE) for line in (run, first)]
        computed, alone = (f"{row}: {PROCESSOR}" for row in (build.row(run), ALONE))
        own.append(Difference(f"own processor time: {build.row(run)}", computed, alone))
    ways.append(Way(ALONE, lambda: by_hand(replace(guest, plan=replace(guest.plan, binary=str(builds[0].standin))))))
    for build in builds[1:]:
        bars += [Within(f"own share: {line}", 0.5, f"own share: {build.row(line)}") for line in (run, first)]
    notes = ["The stand-in answers a second after its start; it stands where QEMU stands in a run."]
    return Table("tinamou's own share, beside an earlier build", ways, ALONE, notes, (), own, bars)


def _in_python(stack: ExitStack, build: Build, environment: Mapping[str, str]) -> _Run:
    paths = ":".join(map(str, build.paths))
    given = {**os.environ, **build.environment, **environment, "PYTHONPATH": paths}

    def run() -> Mapping[str, float]:
        words = [sys.executable, "-c", _FIRST]
        program = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=given)
        time.sleep(0.2)
        said, _ = program.communicate("\n", timeout=60)
        return {"": float(said)}

    return run


def _real(builds: Sequence[Build]) -> Table:
    """The price of the walls: real runs, each build with all it has."""
    run = "run -- true"
    bars: list[Bar] = [Within(run, 1.05, build.row(run)) for build in builds[1:]]
    return Table("a real run, to its exit", [build.timed(run) for build in builds], builds[-1].row(run), bars=bars)

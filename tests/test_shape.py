"""The source keeps its shape, and every checker of it also refuses something."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import shape_checks as shape
from shape_checks import Module

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/tinamou"
HEAVY = (
    "asyncio",
    "httpx2",
    "jinja2",
    "psutil",
    "pycdlib",
    "pydantic",
    "pyroute2",
    "rich",
    "starlette",
    "uvicorn",
)
CHECKS = (
    shape.long_functions,
    shape.spread_of_functions,
    shape.long_files,
    shape.modules_without_sentence,
    shape.vague_names,
    shape.arch_decisions,
    shape.version_comparisons,
    shape.undocumented,
    shape.open_ends,
    shape.misplaced_calls,
    shape.qmp_elsewhere,
    shape.files_by_other_names,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_source(check):
    assert list(check(shape.read_package(PACKAGE))) == []


@pytest.mark.parametrize(
    "check", [shape.long_files, shape.shared_names, shape.asserted_durations], ids=lambda check: check.__name__
)
def test_tests(check):
    assert list(check(shape.read_package(ROOT / "tests"))) == []


def _function(lines: int, name: str = "f") -> str:
    return f"def {name}():\n" + "    x = 1\n" * (lines - 1)


REFUSED = [
    (shape.long_functions, "a.py", _function(61)),
    (shape.spread_of_functions, "a.py", "".join(_function(n, f"f{n}") for n in (2, 2, 2, 31, 31))),
    (shape.spread_of_functions, "a.py", "".join(_function(13, f"f{n}") for n in range(5))),
    (shape.long_files, "a.py", "x = 1\n" * 401),
    (shape.modules_without_sentence, "a.py", "x = 1\n"),
    (shape.modules_without_sentence, "a.py", '"""things"""\n'),
    (shape.vague_names, "disk/utils.py", ""),
    (shape.vague_names, "a.py", "class DiskManager: ..."),
    (shape.arch_decisions, "parts/a.py", "if spec.arch == 'aarch64': x = 1"),
    (shape.arch_decisions, "parts/a.py", "x = host_arch in ('x86_64', 'i386')"),
    (shape.arch_decisions, "parts/a.py", "match arch:\n    case 'riscv64': x = 1"),
    (shape.version_comparisons, "parts/a.py", "x = qemu.version >= (8, 0)"),
    (shape.version_comparisons, "parts/a.py", "x = facts.qemu.version < minimum"),
    (shape.undocumented, "a.py", "def f(): ..."),
    (shape.undocumented, "a.py", 'class C:\n    """C."""\n    def f(self): ...'),
    (shape.open_ends, "a.py", "x = 1  # TODO later"),
    (shape.misplaced_calls, "cli/a.py", "old = os.umask(0o77)"),
    (shape.misplaced_calls, "launch/a.py", "from os import umask"),
    (shape.misplaced_calls, "machine/a.py", "asyncio.run(f())"),
    (shape.qmp_elsewhere, "guest/a.py", "from tinamou.control.wire import Wire"),
    (shape.qmp_elsewhere, "guest/a.py", "from tinamou.control import wire"),
    (shape.files_by_other_names, "guest/a.py", "x = record.file('serial.log')"),
    (shape.files_by_other_names, "guest/a.py", "x = f'{directory}/qmp.sock.lock'"),
    (shape.asserted_durations, "test_a.py", "assert time.monotonic() - start < 2"),
]


@pytest.mark.parametrize(("check", "path", "text"), REFUSED)
def test_refused(check, path, text):
    assert len(list(check([Module(path, text)]))) == 1


def test_refused_names():
    assert len(list(shape.shared_names([Module("a/test_x.py", ""), Module("b/test_x.py", "")]))) == 1
    assert list(shape.shared_names([Module("a/conftest.py", ""), Module("b/conftest.py", ""), Module("a/x.py", "")])) == []


ALLOWED = [
    (shape.long_functions, "a.py", _function(60)),
    (shape.modules_without_sentence, "a/__init__.py", ""),
    (shape.arch_decisions, "arch/a.py", "x = arch == 'aarch64'"),
    (shape.arch_decisions, "probe/a.py", "x = host.arch == guest.arch"),
    (shape.version_comparisons, "facts/qemu.py", "x = self.version >= (8, 0)"),
    (shape.undocumented, "a.py", "def _f(): ...\ndef f():\n    'F.'\n    def g(): ..."),
    (shape.open_ends, "a.py", "x = 1  # TODO(docs/decisions/0004): when QEMU 11 is everywhere"),
    (shape.version_comparisons, "system/qcow2.py", "x = header.version in (2, 3)"),
    (shape.misplaced_calls, "cli/a.py", "asyncio.run(f())"),
    (shape.misplaced_calls, "machine/keeper.py", "asyncio.run(f())"),
    (shape.qmp_elsewhere, "control/a.py", "from tinamou.control.wire import Wire"),
    (shape.files_by_other_names, "guest/a.py", "x = record.file(files.SERIAL_LOG), 'the QEMU log is qemu.log'"),
    (shape.asserted_durations, "test_a.py", "assert time.monotonic() < deadline, 'never came'"),
]


@pytest.mark.parametrize(("check", "path", "text"), ALLOWED)
def test_allowed(check, path, text):
    assert list(check([Module(path, text)])) == []


BREACHES = {
    "blueprint/broken.py": ("import tinamou.parts", "tinamou.blueprint.broken -> tinamou.parts"),
    "service/broken.py": ("import tinamou.cli", "tinamou.service.broken -> tinamou.cli"),
    "stray.py": ("", "tinamou.stray"),
    "facts/broken.py": ("import tinamou.system.exec", "tinamou.facts.broken -> tinamou.system.exec"),
    "parts/broken.py": ("import os", "tinamou.parts.broken -> os"),
    "fleet/asking.py": ("import tinamou.machine", "tinamou.fleet.asking -> tinamou.machine"),
    "images/broken.py": ("import subprocess", "tinamou.images.broken -> subprocess"),
}


@pytest.fixture(scope="module")
def broken_contracts(tmp_path_factory):
    """What the contracts of .importlinter say of a copy of the package with every breach in it."""
    copy = tmp_path_factory.mktemp("contracts")
    shutil.copytree(PACKAGE, copy / "tinamou", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tinamou/service").mkdir(exist_ok=True)
    (copy / "tinamou/service/__init__.py").touch()
    for path, (text, _) in BREACHES.items():
        (copy / "tinamou" / path).write_text(text + "\n")
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
        "--no-logo",
    ]
    done = subprocess.run(
        [*command, "--config", str(ROOT / ".importlinter")],
        cwd=copy,
        env={"PYTHONPATH": str(copy), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_every_contract_breaks(broken_contracts):
    contracts = [line[7:] for line in (ROOT / ".importlinter").read_text().splitlines() if line.startswith("name = ")]
    assert [name for name in contracts if f"{name} BROKEN" not in broken_contracts] == []


@pytest.mark.parametrize("path", BREACHES)
def test_contract_refuses(broken_contracts, path):
    assert BREACHES[path][1] in broken_contracts


def test_contract_of_pure_modules_is_complete():
    """A module of the pure block that exists is named in the contract (which may not name one that does not)."""
    contract = (
        (ROOT / ".importlinter").read_text().partition("[importlinter:contract:pure]")[2].split("forbidden_modules")[0]
    )
    pure = ("planner", "tuning", "spec", "parts", "arch", "facts", "blueprint")
    exist = [name for name in pure if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()]
    assert [name for name in exist if f"tinamou.{name}\n" not in contract] == []


@pytest.mark.parametrize("module", ["tinamou", "tinamou.cli.main", "tinamou.cli.run", "tinamou.cli.running"])
def test_import_stays_light(module):
    """Heavy libraries are imported where they are used, so that the way from the command line to QEMU stays short."""
    if (
        not (PACKAGE / (module.removeprefix("tinamou").strip(".").replace(".", "/") or "__init__"))
        .with_suffix(".py")
        .exists()
    ):
        pytest.skip(f"{module} does not exist yet")
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

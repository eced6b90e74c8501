"""A machine's description edited as a machine file: taken as a whole, refused as a whole, kept where it is refused."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from typed import call

from tinamou.operations import keeping, machines
from tinamou.spec import load_spec
from tinamou.state.machines import find

pytestmark = pytest.mark.vm

SPEC = {"name": "m", "disk": [{"size": "8M"}], "net": ["user"], "memory": {"size": "192M"}}


@pytest.fixture
def off(fake_qemu: Path) -> str:
    asyncio.run(machines.launch(load_spec(SPEC), wait=False))
    asyncio.run(machines.stop("m"))
    return "m"


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What $VISUAL names: a script that a test writes."""
    script = tmp_path / "an editor"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("VISUAL", f"'{script}' --wait")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return script


def test_what_is_edited_is_taken(off: str, editor: Path, tmp_path: Path) -> None:
    editor.write_text("""#!/bin/sh\n[ "$1" = --wait ] && sed -i 's/192M/320M/' "$2"\n""")
    done = call("edit", off)
    assert "memory.size: 192M -> 320M, from the next start on" in done.stdout, done.stderr
    assert "  - -m 192M\n" in done.stdout and "  + -m 320M\n" in done.stdout and "spec memory.size" in done.stdout
    assert find(off).spec == {**find(off).spec, "memory": {"size": "320M"}, "disk": [{"size": "8M"}]}
    assert list(tmp_path.glob("tinamou-*")) == []


def test_nothing_edited_changes_nothing(off: str, editor: Path, tmp_path: Path) -> None:
    before = find(off)
    assert call("edit", off).stderr == "m is as it was\n"
    editor.write_text("#!/bin/sh\n: >$2\n")
    assert call("edit", off).stderr == "m is as it was\n"
    editor.write_text("#!/bin/sh\nexit 3\n")
    assert "ended with status 3" in call("edit", off).stderr
    assert list(tmp_path.glob("tinamou-*")) == []
    for text in ("", "\n", "# nothing\n"):
        assert call("edit", off, "--file", "-", input=text).stdout == "m is so already\n"
    assert find(off) == before


def test_what_was_written_before_the_editor_failed_is_kept(off: str, editor: Path, tmp_path: Path) -> None:
    before = find(off)
    editor.write_text("""#!/bin/sh\nsed -i 's/192M/64M/' "$2"; exit 3\n""")
    done = call("edit", off)
    assert "ended with status 3" in done.stderr
    [path] = re.findall(r"--file (\S+)", done.stderr)
    assert '"64M"' in Path(path).read_text() and find(off) == before


def test_what_is_refused_is_kept(off: str, editor: Path, tmp_path: Path) -> None:
    before = find(off)
    editor.write_text("""#!/bin/sh\nsed -i 's/192M/1M/' "$2"; echo 'nonsense = 1' >>"$2"\n""")
    done = call("edit", off)
    assert done.returncode and "nonsense" in done.stderr and "memory.size" in done.stderr, done.stderr
    [path] = re.findall(r"--file (\S+)", done.stderr)
    assert "nonsense = 1" in Path(path).read_text() and Path(path).stat().st_mode & 0o777 == 0o600
    assert find(off) == before
    Path(path).write_text(Path(path).read_text().replace("nonsense = 1", "").replace('"1M"', '"64M"'))
    assert "memory.size: 192M -> 64M" in call("edit", off, "--file", path).stdout


def test_a_file_and_stdin(off: str) -> None:
    text = keeping.machine_file(off)
    assert call("edit", off, "--file", "-", "--dry-run", input=text.replace("192M", "256M")).stdout.startswith(
        "memory.size: 192M -> 256M, not done"
    )
    assert "not TOML" in call("edit", off, "--file", "-", input="= 1").stderr
    assert "no machine file" in call("edit", off, "--file", "-", input="#" * (2 << 20)).stderr
    assert "cannot be read" in call("edit", off, "--file", "/nosuch").stderr
    assert "tinamou disk rm m disk0" in call("edit", off, "--file", "-", input='memory = "192M"').stderr


def test_what_another_changed_is_not_undone(off: str) -> None:
    text = keeping.machine_file(off)
    asyncio.run(keeping.set_fields(off, ["memory=256M"]))
    with pytest.raises(Exception, match="is not what was edited any more"):
        asyncio.run(keeping.edit(off, text.replace("192M", "1G"), before=text))
    assert find(off).spec["memory"] == {"size": "256M"}


def test_there_must_be_an_editor(off: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISUAL", "/nosuch/editor")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert "there is no editor /nosuch/editor" in call("edit", off).stderr
    monkeypatch.setenv("VISUAL", "vi 'without end")
    assert 'the editor "vi \'without end" cannot be called' in call("edit", off).stderr
    assert list(tmp_path.glob("tinamou-*")) == []

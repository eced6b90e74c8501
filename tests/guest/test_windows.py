"""Commands for a Windows guest: quoting that comes apart again as Windows takes it apart, by an agent that plays one."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinamou.errors import GuestError, NoCommandError
from tinamou.guest import copy, execute
from tinamou.guest.agent import Agent
from tinamou.guest.channel import AgentRefusedError
from tinamou.guest.command import command
from tinamou.guest.windows import begun, command_line, encoded
from tinamou.system.loop_thread import wait_for

words = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12), max_size=6)


def taken_apart(line: str) -> list[str]:
    """As the C runtime of Windows does (source: Microsoft, *Parsing C command-line arguments*)."""
    found: list[str] = []
    at, size = 0, len(line)
    while at < size:
        while at < size and line[at].isspace():
            at += 1
        if at == size:
            break
        word, inside = "", False
        while at < size and (inside or not line[at].isspace()):
            slashes = len(line[at:]) - len(line[at:].lstrip("\\"))
            at += slashes
            if line[at : at + 1] != '"':
                word += "\\" * slashes or line[at]
                at += 0 if slashes else 1
            elif slashes % 2:
                word, at = word + "\\" * (slashes // 2) + '"', at + 1
            elif inside and line[at + 1 : at + 2] == '"':
                word, at = word + "\\" * (slashes // 2) + '"', at + 2
            else:
                word, at, inside = word + "\\" * (slashes // 2), at + 1, not inside
        found.append(word)
    return found


@given(words)
def test_a_line_comes_apart_into_the_same_words(argv: list[str]):
    assert taken_apart(command_line(argv)) == argv


def test_that_reader_is_microsofts():
    """The examples of Microsoft's own page."""
    for line, expected in (
        (r'"abc" d e', ["abc", "d", "e"]),
        (r'a\\b d"e f"g h', [r"a\\b", "de fg", "h"]),
        (r"a\\\"b c d", [r"a\"b", "c", "d"]),
        (r'a\\\\"b c" d e', [r"a\\b c", "d", "e"]),
    ):
        assert taken_apart(line) == expected


def script_of(sent: tuple[str, ...] | list[str]) -> str:
    assert sent[0] == "powershell.exe" and sent[-2] == "-EncodedCommand"
    assert re.fullmatch(r"[A-Za-z0-9+/]+=*", sent[-1])
    return base64.b64decode(sent[-1]).decode("utf-16-le")


def literals(script: str) -> list[str]:
    """The literals in single quotes, as PowerShell reads them: each of its five single quotes twice is one of it."""
    marks = "'\u2018\u2019\u201a\u201b"
    return [
        re.sub(rf"([{marks}])[{marks}]", r"\1", one) for one in re.findall(rf"'((?:[^{marks}]|[{marks}]{{2}})*)'", script)
    ]


@given(
    words.filter(bool).filter(lambda argv: bool(argv[0])),
    st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=9),
)
def test_words_variables_and_folders_arrive_as_they_are(argv: list[str], value: str):
    how = begun(command(argv, cwd="C:\\it's", env={"A'B": value}))
    found = literals(script_of(how.words))
    assert found[1:4] == ["C:\\it's"] * 3
    assert found[4:6] == ["A'B", value]
    assert found[6] == argv[0] and taken_apart(found[7]) == argv[1:]


def test_a_list_is_started_as_it_is_and_a_text_is_powershells():
    assert begun(command(["ipconfig.exe", "/all"])).words == ("ipconfig.exe", "/all")
    script = script_of(begun(command(["/bin/sh", "-c", 'Get-Item "C:\\a b" | % { "$_ \'x\'" }'])).words)
    assert '\nGet-Item "C:\\a b" | % { "$_ \'x\'" }\n$ok = $?' in script
    with pytest.raises(GuestError, match="password"):
        begun(command(["x"], user="ada"))
    with pytest.raises(GuestError, match="longer than a command line"):
        encoded("x" * 20_000)


class Windows(Agent):
    """An agent that answers as one of a Windows: no /bin/sh, no true; files by their paths in a dictionary."""

    def __init__(self) -> None:
        super().__init__("/nosuch")
        self.files: dict[str, bytearray] = {}
        self.run_words: list[list[str]] = []
        self.status, self.said = 0, b""
        self.damage = False

    async def command(
        self, name: str, arguments: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> object:
        given: dict[str, Any] = dict(arguments or {})
        return getattr(self, name.replace("-", "_"))(**{key.replace("-", "_"): value for key, value in given.items()})

    def guest_get_osinfo(self) -> object:
        return {"id": "mswindows", "name": "Microsoft Windows", "version-id": "11"}

    def guest_exec(self, path: str, arg: list[str], **_: object) -> object:
        if path in ("/bin/sh", "true"):
            raise AgentRefusedError("guest-exec", "GenericError", "Guest command failed: The system cannot find the file")
        self.run_words.append([path, *arg])
        if path == "powershell.exe":
            self._powershell(script_of([path, *arg]))
        return {"pid": 7}

    def _powershell(self, script: str) -> None:
        names = literals(script)
        self.said = b""
        if "Get-FileHash" in script:
            self.said = hashlib.sha256(self.files[names[-1]]).hexdigest().upper().encode() + b"\r\n"
        elif "Move-Item" in script:
            self.files[names[-1]] = self.files.pop(names[-2])
        elif "Remove-Item" in script:
            del self.files[names[-1]]

    def guest_exec_status(self, pid: int) -> object:
        return {"exited": True, "exitcode": self.status, "out-data": base64.b64encode(self.said).decode()}

    def guest_file_open(self, path: str, mode: str) -> object:
        if "w" in mode:
            self.files[path] = bytearray()
        elif path not in self.files:
            raise AgentRefusedError("guest-file-open", "GenericError", "failed to open file")
        self.open, self.at = path, 0
        return 1000

    def guest_file_write(self, handle: int, buf_b64: str) -> object:
        data = base64.b64decode(buf_b64)
        self.files[self.open] += data[:-1] + b"?" if self.damage else data
        return {"count": len(data)}

    def guest_file_read(self, handle: int, count: int) -> object:
        data = bytes(self.files[self.open][self.at : self.at + count])
        self.at += len(data)
        return {"count": len(data), "buf-b64": base64.b64encode(data).decode(), "eof": self.at >= len(self.files[self.open])}

    def guest_file_flush(self, handle: int) -> object:
        return {}

    def guest_file_close(self, handle: int) -> object:
        return {}


def test_a_command_finds_its_way_without_a_word_about_the_system():
    agent = Windows()
    agent.said = b"hi\r\n"
    assert wait_for(agent.run(["whoami.exe", "/user"])).text == "hi\r"
    assert agent.run_words == [["whoami.exe", "/user"]]
    assert wait_for(execute.may_run(agent)) and agent.run_words[-1] == ["cmd.exe", "/d", "/c", "exit 0"]
    assert wait_for(execute.kill(agent, 7)) and agent.run_words[-1] == ["taskkill.exe", "/PID", "7", "/T", "/F"]


def test_output_is_heard_at_its_end():
    agent, out = Windows(), bytearray()
    agent.said = b"x" * 100
    wait_for(agent.stream(["dir.exe"], out.extend, lambda _: None))
    assert out == b"x" * 100


def test_what_could_not_begin_is_told():
    agent = Windows()
    agent.status = 9010
    with pytest.raises(GuestError, match="cannot begin in the folder"):
        wait_for(agent.run(["x.exe"], cwd="C:\\nosuch"))
    agent.status = 9009
    with pytest.raises(NoCommandError):
        wait_for(agent.run(["nosuch.exe"], env={"A": "1"}))


def test_files_there_and_back(tmp_path: Path):
    agent, data = Windows(), bytes(range(256)) * 3000
    (tmp_path / "a").write_bytes(data)
    assert copy.parse_end("win:C:\\Users\\ada\\a.bin") == copy.End("win", "C:\\Users\\ada\\a.bin")
    done = wait_for(copy.into_guest(agent, tmp_path / "a", "C:\\Users\\it's\\"))
    assert (done.bytes, done.verified) == (len(data), True)
    assert agent.files == {"C:\\Users\\it's\\a": bytearray(data)}
    back = wait_for(copy.out_of_guest(agent, "C:\\Users\\it's\\a", tmp_path / "b"))
    assert back.verified and (tmp_path / "b").read_bytes() == data
    with pytest.raises(GuestError, match="larger than 10 bytes"):
        wait_for(copy.out_of_guest(agent, "C:\\Users\\it's\\a", tmp_path / "c", limit=10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_damage_on_the_way_is_noticed_and_leaves_nothing(tmp_path: Path):
    agent = Windows()
    agent.damage = True
    (tmp_path / "a").write_bytes(b"whole")
    with pytest.raises(GuestError, match="was not copied"):
        wait_for(copy.into_guest(agent, tmp_path / "a", "C:/a"))
    assert agent.files == {}
    with pytest.raises(GuestError, match="folder"):
        wait_for(copy.into_guest(agent, tmp_path, "C:/a"))

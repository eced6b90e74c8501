"""Commands, streams and sockets on another host, through a real ssh server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from sshd_here import Sshd, make_key, sshd

from tinamou import late
from tinamou.errors import HostError, StateError
from tinamou.fleet import remote
from tinamou.fleet.hosts import Host

LONG = 120.0


def does(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, LONG))


def run(host: Host, *words: str, **how: Any) -> remote.Result:
    result: remote.Result = does(remote.run(host, words, **{"timeout": LONG, **how}))
    return result


def call(host: Host, *words: str) -> Any:
    return does(remote.call_json(host, words, timeout=LONG))


def test_words_arrive_as_they_are(server: Sshd) -> None:
    words = ["a b", "c'd", "$HOME", "*", "", "\n", "-n", "ä"]
    done = run(server.host(), "printf", "%s|", *words)
    assert done.text == "".join(f"{word}|" for word in words)


def test_input_output_and_status(server: Sshd) -> None:
    data = bytes(range(256)) * 5000
    assert run(server.host(), "cat", input=data).stdout == data
    assert run(server.host(), "sh", "-c", "echo said >&2; exit 7") == remote.Result(7, b"", b"said\n")


def test_a_commands_own_255_is_no_lost_line(server: Sshd) -> None:
    assert run(server.host(), "sh", "-c", "echo said >&2; exit 255").status == 255
    with pytest.raises(remote.SilentHostError, match="does not answer"):
        run(server.host(), "sh", "-c", "kill -9 $PPID; exec sleep 300")


def test_who_says_too_much_is_heard_no_longer(server: Sshd) -> None:
    with pytest.raises(HostError, match="more than the 1000 bytes"):
        run(server.host(), "yes", most=1000)


def test_another_key_is_another_host(server: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "ed")
    make_key(tmp_path / "ec", "ecdsa")
    for name in ("ed", "ec"):  # the same kind as the server's, and one it has none of
        key = " ".join((tmp_path / f"{name}.pub").read_text().split()[:2])
        with pytest.raises(remote.WrongKeyError, match="is not far: SHA256:"):
            run(server.host(key=key), "true")


def test_the_users_settings_have_no_say_in_trust(server: Sshd) -> None:
    with remote.ssh.client(server.host(), connect=LONG) as client:
        argv = " ".join(client.argv(["true"]))
    assert "-F none" in argv
    assert "StrictHostKeyChecking=yes" in argv
    assert "GlobalKnownHostsFile=none" in argv


def test_who_is_not_let_in(server: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    with pytest.raises(remote.RefusedLoginError, match="does not let"):
        run(server.host(identity=str(tmp_path / "stranger")), "true")


def test_nobody_listens(server: Sshd) -> None:
    with pytest.raises(remote.SilentHostError, match="Connection refused"):
        run(server.host(port=1), "true")


def test_a_host_that_hangs_is_silent_within_the_time(tmp_path: Path) -> None:
    """Its kernel takes connections, and no one speaks: the server's process is stopped."""
    with sshd(tmp_path / "sshd") as hung:
        hung.process.send_signal(19)
        with pytest.raises(remote.SilentHostError, match=r"far \(127"):
            run(hung.host(), "true", timeout=1.0)


def test_tinamou_there_answers_as_data(server: Sshd, tmp_path: Path) -> None:
    host = server.host(state=tmp_path)
    assert call(host, "ls") == []
    with pytest.raises(StateError, match="no machine named nobody") as caught:
        call(host, "show", "nobody")
    assert caught.value.fix == "tinamou ls shows all machines"
    with pytest.raises(HostError, match="and no JSON"):
        call(late.replace(host, command=("sh", "-c", "[ $0 != --version ] || echo 0.1.0")), "ls")


def test_what_is_there_in_tinamous_place(server: Sshd) -> None:
    with pytest.raises(remote.NoTinamouError, match="no tinamou on far"):
        call(server.host(command=("no-such-program",)), "ls")
    other = ("sh", "-c", '[ "$0" != --version ] && echo "did $0" >&2 && exit 9; echo 99.1.2')
    with pytest.raises(remote.OtherVersionError, match=r"has tinamou 99\.1\.2"):
        call(server.host(command=other), "rm")


def test_a_stream_carries_bytes_both_ways(server: Sshd) -> None:
    async def work() -> None:
        async with remote.stream(server.host(), ["tr", "a-z", "A-Z"], connect=LONG) as pipe:
            pipe.writer.write(b"word\n")
            pipe.writer.write_eof()
            assert await pipe.reader.read() == b"WORD\n"
            assert await pipe.process.wait() == 0

    does(work())


def test_a_stream_that_is_lost_says_so(server: Sshd) -> None:
    async def work() -> None:
        async with remote.stream(server.host(), ["sh", "-c", "kill -9 $PPID; exec sleep 300"], connect=LONG) as pipe:
            assert await pipe.reader.read() == b""

    with pytest.raises(remote.SilentHostError):
        does(work())


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"greeting")
    writer.close()


async def _heard(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    with contextlib.closing(writer):
        return await reader.read()


def test_sockets_are_carried_both_ways_and_gone_after(server: Sshd, state: Path) -> None:
    async def work() -> None:
        near, far, back = (state / name for name in ("near.sock", "far.sock", "back.sock"))
        async with await asyncio.start_unix_server(_greet, path=far):
            async with remote.forward(server.host(), {near: str(far)}, {str(back): far}, timeout=LONG):
                assert await _heard(near) == await _heard(back) == b"greeting"
            assert not near.exists() and not back.exists()

    does(work())


def test_a_socket_that_is_taken_there_is_an_error(server: Sshd, state: Path) -> None:
    async def work() -> None:
        taken = state / "taken"
        taken.mkdir()
        async with remote.forward(server.host(), back={str(taken): state / "here.sock"}, timeout=LONG):
            raise AssertionError("it stands")

    with pytest.raises(remote.SilentHostError, match="forwarding failed"):
        does(work())

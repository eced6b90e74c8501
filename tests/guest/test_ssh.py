"""ssh argument vectors against the real programs: OpenSSH's client here, a real sshd where there is one."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest
from running import run

from tinamou.errors import GuestError
from tinamou.guest import copy, ssh


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def listens(port):
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "sshd never listened"
            time.sleep(0.02)


@pytest.fixture
def server(state):
    """A real ssh server on this host that knows one key."""
    sshd = shutil.which("sshd", path="/usr/sbin:/sbin")
    if not sshd:
        pytest.skip("no sshd on this host (openssh-server)")
    folder = state / "with space"
    folder.mkdir()
    for name in ("id_ed25519", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = free_port()
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": f'"{folder}/host"',
        "AuthorizedKeysFile": f'"{folder}/id_ed25519.pub"',
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    os.makedirs("/run/sshd", exist_ok=True)  # noqa: PTH103
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    try:
        listens(port)
        yield ssh.target(str(folder), getpass.getuser(), port)
    finally:
        process.kill()
        process.wait()


def over_ssh(server, *words, input=b""):
    argv = ssh.ssh_argv(server, words, terminal=False)
    done = subprocess.run(argv, input=input, capture_output=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_run_and_copy(server, state):
    assert over_ssh(server, "printf", "%s|", "a b", "$HOME", "it's", "*") == (0, b"a b|$HOME|it's|*|", b"")
    assert over_ssh(server, "sh", "-c", "echo no >&2; exit 7")[::2] == (7, b"no\n")
    assert over_ssh(server, "cat", input=b"\0\xff")[1] == b"\0\xff"

    async def talk():
        (state / "file").write_text("x")
        await copy.by_scp(server, [str(state / "file")], f"{state}/copied", into=True)
        await copy.by_scp(server, [f"{state}/copied"], str(state / "back"), into=False)
        assert (state / "back").read_text() == "x"
        with pytest.raises(GuestError, match="scp"):
            await copy.by_scp(server, [f"{state}/missing"], str(state / "back2"), into=False)

    run(talk())
    known = (state / "with space" / "known_hosts").read_text()
    assert known.startswith("[127.0.0.1]:")


def test_a_wrong_key_and_a_changed_host(server, state):
    folder = state / "with space"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(state / "other")], check=True)
    wrong = ssh.SshTarget(server.user, server.port, str(state / "other"), server.known_hosts)
    status, _, said = over_ssh(wrong, "true")
    assert status == 255 and b"Permission denied" in said
    other = (state / "other.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    status, _, said = over_ssh(server, "true")
    assert status == 255 and b"REMOTE HOST IDENTIFICATION HAS CHANGED" in said


def test_argument_vectors(state):
    target = ssh.target("/m/web 100%", "anna", 2222)
    argv = ssh.ssh_argv(target)
    assert argv[-4:] == ["2222", "-l", "anna", "127.0.0.1"]
    assert '-oUserKnownHostsFile="/m/web 100%%/known_hosts"' in argv
    assert argv[argv.index("-i") + 1] == "/m/web 100%/id_ed25519"
    assert "-t" in ssh.ssh_argv(target, ["top"], terminal=True)
    assert ssh.ssh_argv(target, ["a b", "c"])[-2:] == ["--", "'a b' c"]
    assert ssh.scp_argv(target, ["a:b", "/c"], "/d", into_guest=True)[-3:] == ["./a:b", "/c", "anna@127.0.0.1:/d"]
    assert ssh.scp_argv(target, ["/x", "/y"], "z", into_guest=False)[-3:] == [
        "anna@127.0.0.1:/x",
        "anna@127.0.0.1:/y",
        "./z",
    ]


def greets(line, how):
    """A server as guests that boot have it: resets, closes, says nothing, greets at last."""
    for what in how:
        client, _ = line.accept()
        with client:
            if what == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif what == "greet":
                client.sendall(b"SSH-2.0-test\r\n")


def test_the_server_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as line:
        answering = threading.Thread(target=greets, args=(line, ["reset", "close", "reset", "greet"]))
        answering.start()
        told = []
        target = ssh.SshTarget("anna", line.getsockname()[1], "key", "known")
        ssh.until_served(target, 60, lambda: True, lambda: told.append(1))
        answering.join()
    assert told == [1]


def test_a_server_that_never_greets_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as line:
        target = ssh.SshTarget("anna", line.getsockname()[1], "key", "known")
        with pytest.raises(GuestError, match="No ssh server answered"):
            ssh.until_served(target, 0.2, lambda: True, lambda: None)
        with pytest.raises(GuestError, match="ended"):
            ssh.until_served(target, 60, lambda: False, lambda: None)

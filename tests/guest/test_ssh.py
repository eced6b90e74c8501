"""ssh argument vectors and waiting, against the real programs: OpenSSH's client here, a real sshd where there is one."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
import subprocess

import pytest
from running import local_agent, run

from tinamou.errors import GuestError
from tinamou.guest import copy, ssh


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


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
    yield ssh.target(str(folder), getpass.getuser(), port)
    process.kill()
    process.wait()


def test_run_and_copy(server, state):
    async def talk():
        assert (await ssh.wait_ssh(server, timeout=20)).startswith("SSH-2.0-")
        assert await ssh.run(server, ["printf", "%s|", "a b", "$HOME", "it's", "*"]) == (0, b"a b|$HOME|it's|*|", b"")
        assert (await ssh.run(server, ["sh", "-c", "echo no >&2; exit 7"]))[::2] == (7, b"no\n")
        assert (await ssh.run(server, ["cat"], input=b"\0\xff"))[1] == b"\0\xff"
        with pytest.raises(GuestError, match="did not end"):
            await ssh.run(server, ["sleep", "60"], timeout=0.5)
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
    run(ssh.wait_ssh(server, timeout=20))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(state / "other")], check=True)
    wrong = ssh.SshTarget(server.user, server.port, str(state / "other"), server.known_hosts)
    with pytest.raises(GuestError, match="could not run") as caught:
        run(ssh.run(wrong, ["true"]))
    assert "Permission denied" in caught.value.why
    other = (state / "other.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    with pytest.raises(GuestError, match="could not run") as caught:
        run(ssh.run(server, ["true"]))
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in caught.value.why


def test_a_port_that_is_open_but_silent_is_no_server(state):
    """A user-mode network accepts connections before the guest listens."""

    async def talk():
        async def serve(reader, writer):
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(GuestError, match="No ssh server answered"):
            await ssh.wait_ssh(ssh.target(str(state), "root", port), timeout=0.3)
        listening.close()

    run(talk())


def test_a_guest_that_is_slow_to_greet(state, monkeypatch):
    """Its first connection hangs for good, the greeting of the next takes longer than the first patience."""
    monkeypatch.setattr(ssh, "_FIRST_PATIENCE", 0.2)
    count = 0

    async def serve(reader, writer):
        nonlocal count
        count += 1
        await asyncio.sleep(60 if count == 1 else 0.6)
        writer.write(b"SSH-2.0-Slow\r\n")
        writer.close()

    async def talk():
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        greeting = await ssh.wait_ssh(ssh.target(str(state), "root", port), timeout=30)
        listening.close()
        return greeting

    assert run(talk()) == "SSH-2.0-Slow"
    assert count > 2


def test_with_an_agent_nothing_connects_before_the_guest_listens(state, monkeypatch):
    """The guest is this host, its agent real; the port is one of our own in place of 22."""
    port = free_port()
    monkeypatch.setattr(ssh, "_SSH_PORT", f":{port:04X}")
    tried = []
    greeting = ssh._greeting

    async def noted(target, patience):
        tried.append(patience)
        return await greeting(target, patience)

    monkeypatch.setattr(ssh, "_greeting", noted)

    async def serve(reader, writer):
        writer.write(b"SSH-2.0-Here\r\n")
        writer.close()

    async def talk(agent):
        async with agent:
            waiting = asyncio.create_task(ssh.wait_ssh(ssh.target(str(state), "root", port), agent=agent, timeout=30))
            await asyncio.sleep(1)
            assert tried == []
            listening = await asyncio.start_server(serve, "127.0.0.1", port)
            assert await waiting == "SSH-2.0-Here"
            listening.close()
            with pytest.raises(GuestError, match="No ssh server answered"):
                await ssh.wait_ssh(ssh.target(str(state), "root", port), agent=agent, timeout=0.5)

    with local_agent(state) as agent:
        run(talk(agent))
    assert len(tried) == 1


def test_a_machine_that_ended(state):
    with pytest.raises(GuestError, match="machine ended"):
        run(ssh.wait_ssh(ssh.target(str(state), "root", free_port()), alive=lambda: False, timeout=200))


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

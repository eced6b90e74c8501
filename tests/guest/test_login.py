"""Commands by a guest's agent run as a login of their user would: environment, folder, rights, and input of any size."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from running import local_agent, outputs, run
from typed import eventually, limits, number_in

from tinamou.errors import GuestError, NoCommandError, SpecError, TimeLimitError
from tinamou.guest.agent import Completed
from tinamou.guest.command import CAPTURED

TOOLS = ("id", "getent", "grep", "su", "cat", "mkdir", "mkfifo", "rm", "sleep", "kill", "setsid")


def talk(state, work):
    """Run ``work`` with an agent on this host, both ways: with its output kept, and heard while it runs."""

    async def heard(agent, argv, **how):
        out, err = bytearray(), bytearray()
        done = await agent.stream(argv, out.extend, err.extend, **how)
        return Completed(done.status, bytes(out), bytes(err))

    async def whole(agent):
        async with agent:
            await work(lambda argv, **how: agent.run(argv, **how))
            await work(lambda argv, **how: heard(agent, argv, **how))
            assert outputs(state) == []

    with local_agent(state) as agent:
        run(whole(agent))


def lives(pid):
    return Path(f"/proc/{int(pid)}").exists()


def test_the_environment(state):
    async def work(do):
        found = dict(one.split("=", 1) for one in (await do(["env"])).text.split("\n"))
        shell = found.pop("SHELL")
        assert shell.startswith("/") and found.pop("PWD", "/root") == "/root"
        found.pop("OLDPWD", "")
        found.pop("_", "")
        found.pop("SHLVL", "")
        assert found == {
            "HOME": "/root",
            "USER": "root",
            "LOGNAME": "root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        added = (await do(["env"], env={"A": "b c", "HOME": "/x"})).text.split("\n")
        assert {"A=b c", "HOME=/x", "USER=root"} <= set(added) and "HOME=/root" not in added
        assert (await do(["pwd"])).text == "/root"
        assert (await do(["pwd"], cwd="/usr")).text == "/usr"
        assert (await do(["sh", "-c", "umask"])).text in ("0022", "022")
        assert (await do(["printf", "%s", "a=b", "$x", "'"])).text == "a=b$x'"

    talk(state, work)


@pytest.mark.root
@pytest.mark.parametrize("tool", ["setpriv", "su"])
def test_the_rights_of_a_user(state, monkeypatch, tool):
    folder = state / "bin"
    folder.mkdir()
    for name in (*TOOLS, tool):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(shutil.which(name))
    binary = shutil.which("qemu-ga") or shutil.which("qemu-ga", path="/usr/sbin:/sbin")
    if binary:
        (folder / "qemu-ga").symlink_to(binary)
    monkeypatch.setenv("PATH", str(folder))

    async def work(do):
        show = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME $A; pwd; exit 3"
        done = await do(["sh", "-c", show], user="nobody", cwd="/usr", env={"A": "b"})
        said = done.text.split("\n")
        assert said[0] == said[1] == said[2] != "0"
        assert said[3].split()[1:] == ["nobody", "nobody", "b"]
        assert (said[4], done.exit_status) == ("/usr", 3)
        assert (await do(["id", "-un"], user=said[0])).text == "nobody"
        assert (await do(["cat"], user="nobody", input=b"in")).stdout == b"in"
        (state / "closed").mkdir(mode=0o700, exist_ok=True)
        with pytest.raises(GuestError, match=f"cannot begin in the folder {state}/closed"):
            await do(["true"], user="nobody", cwd=f"{state}/closed")
        with pytest.raises(NoCommandError, match="could not start nosuch"):
            await do(["nosuch"], user="nobody")

    talk(state, work)


def test_what_cannot_run_is_named(state):
    async def work(do):
        with pytest.raises(GuestError, match="no user nosuch in the guest"):
            await do(["true"], user="nosuch")
        with pytest.raises(GuestError, match="cannot begin in the folder /no/such"):
            await do(["true"], cwd="/no/such")
        for name in ("no-such-program", "/no/such", "/etc/passwd"):
            with pytest.raises(NoCommandError, match=f"could not start {name}") as missing:
                await do([name])
            assert missing.value.code == 127
        assert (await do(["sh", "-c", "echo x >&2; exit 127"])).status == 127
        with pytest.raises(SpecError, match="cannot be run like this"):
            await do(["true"], cwd="relative")

    talk(state, work)


def test_input_of_any_size(state):
    data = os.urandom(40_000_000)

    async def work(do):
        digest = hashlib.sha256(data).hexdigest()
        assert (await do(["sha256sum"], input=data)).text.split()[0] == digest
        assert (await do(["head", "-c", "3"], input=data[: 3 << 20])).stdout == data[:3]

        async def typed():
            for start in range(0, 5_000_000, 1_000_000):
                yield data[start : start + 1_000_000]
                await asyncio.sleep(0)

        assert (await do(["sha256sum"], input=typed())).text.split()[0] == hashlib.sha256(data[:5_000_000]).hexdigest()

        async def broken():
            yield b"x"
            await asyncio.to_thread(number_in, state / "pid")
            raise OSError("on purpose")

        (state / "pid").unlink(missing_ok=True)
        with pytest.raises(OSError, match="on purpose"):
            await do(["sh", "-c", f"echo $$ >{state}/pid; cat; exec sleep 600"], input=broken())
        eventually(lambda: not lives((state / "pid").read_text()), "its end")

    talk(state, work)


def test_input_is_read_while_it_comes(state):
    async def talk(agent):
        async with agent:
            heard = asyncio.Queue()

            async def typed():
                for word in (b"one\n", b"two\n"):
                    yield word
                    assert await heard.get() == word

            assert (await agent.stream(["cat"], heard.put_nowait, print, input=typed())).status == 0

    with local_agent(state) as agent:
        run(talk(agent))


def test_what_is_kept_has_a_bound(state):
    async def talk(agent):
        async with agent:
            done = await agent.run(["head", "-c", str(CAPTURED + 1), "/dev/zero"])
            assert (len(done.stdout), done.truncated) == (CAPTURED, True)
            done = await agent.run(["head", "-c", str(CAPTURED + 1), "/dev/zero"], input=bytes(2 << 20))
            assert (len(done.stdout), done.truncated) == (CAPTURED, True)

    with local_agent(state) as agent:
        run(talk(agent))


def test_what_a_command_started_is_killed_with_it(state):
    async def work(do):
        (state / "child").unlink(missing_ok=True)
        for limit in limits():
            with pytest.raises(TimeLimitError, match="The command sh -c sleep 600"):
                await do(["sh", "-c", f"sleep 600 & echo $! >{state}/child; wait"], timeout=limit)
            if (state / "child").exists() and (state / "child").read_text():
                break
        eventually(lambda: not lives((state / "child").read_text()), "the end of its child")

    talk(state, work)


def test_the_agent_itself_can_be_meant(state, monkeypatch):
    monkeypatch.setenv("MARK", "the agent's")

    async def talk(agent):
        async with agent:
            assert "MARK=the agent's" in (await agent.run(["env"], bare=True)).text.split("\n")
            assert "MARK" not in (await agent.run(["env"])).text

    with local_agent(state) as agent:
        run(talk(agent))

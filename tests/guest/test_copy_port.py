"""Copying with a real guest through a port of its own: what it leaves, how it ends, what a hostile guest can do with it."""

from __future__ import annotations

import asyncio
import functools
import os

import pytest
from running import qemu, run, tiny
from sent import FILE, HOSTILE, archived, rewritten
from trees import fill, same, seen, sparse, tree

from tinamou.control import connect_qmp
from tinamou.control.answers import records
from tinamou.errors import GuestError, StateError, TimeLimitError
from tinamou.guest import copy, files
from tinamou.guest.carry import exchange, port
from tinamou.guest.carry.feed import Line
from tinamou.guest.files import write
from tinamou.probe.qemu import find_binary

pytestmark = pytest.mark.vm


@pytest.fixture
def by_port_alone(monkeypatch):
    """Nothing goes by the agent, however small."""
    monkeypatch.setattr(exchange, "SMALL", -1)
    monkeypatch.setattr(exchange, "_spooled", None)
    monkeypatch.setattr(files, "write", None)


async def ports(machine):
    """What QEMU has of a copy."""
    async with await connect_qmp(machine.directory) as session:
        devices = records(await session.execute("qom-list", path="/machine/peripheral"))
        lines = records(await session.execute("query-chardev"))
    return [one for one in (*(d["name"] for d in devices), *(c["label"] for c in lines)) if "copy" in one]


async def left(machine, agent):
    """What a copy left in the guest, and in QEMU."""
    look = "find / -xdev -name '.tinamou-*'; ps -o args | grep -e '[d]d bs' -e '[t]ar -[cx]' -e 'port_[n]amed'"
    return (await agent.run(["sh", "-c", look])).text + " ".join(await ports(machine))


def test_a_real_guest_by_a_port(state, here, by_port_alone):
    source = here / "source"
    source.mkdir()
    fill(source)
    (source / "data").write_bytes(os.urandom(9 << 20))
    sparse(source / "image")

    async def talk(machine):
        to = functools.partial(copy.into_guest, directory=machine.directory)
        back = functools.partial(copy.out_of_guest, directory=machine.directory)
        async with machine.agent() as agent:
            await agent.wait(100)
            assert (await to(agent, source, "/root/source")).verified
            assert (await back(agent, "/root/source", here / "back")).verified
            same(source / "image", here / "back/image")
            for image in (source / "image", here / "back/image"):
                image.unlink()
            assert tree(here / "back") == tree(source)
            assert (await to(agent, source / "run.sh", "/root/")).verified
            assert (await back(agent, "/root/run.sh", here / "back")).verified
            assert (await agent.run(["stat", "-c", "%a", "/root/run.sh"])).text == "755"
            await agent.run(["sh", "-c", "mkdir -m 1777 /root/box; ln -s box /root/link"])
            assert (await to(agent, f"{source}/.", "/root/link")).verified
            kept = "stat -c '%a %F' /root/box /root/link; cat /root/box/run.sh"
            assert (await agent.run(["sh", "-c", kept])).text == "1777 directory\n777 symbolic link\n#!/bin/sh"
            with pytest.raises(GuestError) as caught:
                await to(agent, source / "data", "/proc/data")
            assert "mkdir" in caught.value.why
            assert await left(machine, agent) == ""

    with tiny(state) as machine:
        run(talk(machine))


def test_a_copy_that_ends_early_leaves_nothing(state, here):
    (here / "big").write_bytes(os.urandom(60 << 20))
    (here / "folder").mkdir()
    (here / "folder" / "big").write_bytes(bytes(60 << 20))

    async def ended(work, began):
        task = asyncio.create_task(work)
        while not await began() and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def talk(machine):
        async with machine.agent() as agent:
            await agent.wait(100)

            async def in_guest():
                return (await agent.run(["sh", "-c", "ls -d /root/.tinamou-*/new"])).status == 0

            async def on_host():
                return bool(list(here.glob("back/.tinamou-*/new")))

            await agent.run(["sh", "-c", "mkdir /root/d; dd if=/dev/zero of=/root/d/big bs=1M count=40"])
            (here / "back").mkdir()
            for source in ("big", "folder"):
                await ended(copy.into_guest(agent, here / source, "/root/", directory=machine.directory), in_guest)
                assert await left(machine, agent) == ""
            for source in ("/root/d/big", "/root/d"):
                await ended(copy.out_of_guest(agent, source, here / "back", directory=machine.directory), on_host)
                assert await left(machine, agent) == ""
            assert list((here / "back").iterdir()) == []
            assert (await agent.run(["ls", "-A", "/root"])).text == "d"
            one = copy.out_of_guest(agent, "/root/d/big", here / "one", directory=machine.directory)
            two = copy.into_guest(agent, here / "back", "/root/two", directory=machine.directory)
            await asyncio.gather(one, two)
            assert (here / "one").stat().st_size == 40 << 20

    with tiny(state, "-m", "512") as machine:
        run(talk(machine))


TEN = (
    "a name that leads up",
    "an absolute name",
    "a member below a link",
    "a link below a link",
    "a file that becomes a link",
    "the folder itself as a link",
    "a hard link by way of a link",
    "100,000 folders deep",
    "a sparse file of 1 TiB",
    "half an archive",
)
HOSTILE_TAR = """#!/usr/bin/busybox sh
script=$2
shift 2
exec /usr/bin/busybox sh -c "tar() { cat /root/hostile; }
$script" "$@"
"""


def test_hostile_archives_of_a_real_guest(state, here, by_port_alone):
    """The guest's tar sends whatever it likes: every kind ends with one error, and nothing of ours was touched."""
    victim, target = state / "victim", here / "to"
    victim.mkdir(mode=0o750)
    (victim / "keys").write_text("mine")

    async def talk(machine):
        async with machine.agent() as agent:
            await agent.wait(100)
            await agent.run(["sh", "-c", "mkdir /root/data; rm /usr/bin/sh"])
            await write(agent, "/usr/bin/sh", [HOSTILE_TAR.encode()])
            await agent.run(["/usr/bin/busybox", "chmod", "755", "/usr/bin/sh"], bare=True)
            before = seen(victim)
            for kind in TEN:
                archive = rewritten(HOSTILE[kind], victim) if b"{victim}" in HOSTILE[kind] else HOSTILE[kind]
                await write(agent, "/root/hostile", [archive])
                with pytest.raises(GuestError) as caught:
                    await copy.out_of_guest(agent, "/root/data", target, directory=machine.directory)
                assert "\n" not in caught.value.what, kind
                assert seen(victim) == before, kind
                assert list(here.iterdir()) == [], kind
            await write(agent, "/root/hostile", [archived(("harmless", FILE, b"x"))])
            await copy.out_of_guest(agent, "/root/data", target, directory=machine.directory)
            assert (target / "harmless").read_bytes() == b"x"
            assert await left(machine, agent) == ""

    with tiny(state) as machine:
        run(talk(machine))


SHELLS = {
    "it says nothing": "sleep 1000",
    "it sends for ever": "printf 'file 644 0 1099511627776\\n\\n0 16777216\\n' >&3; cat /dev/zero >&3",
    "it sends chunks for ever": "echo folder >&3; while :; do echo 'chunk 1024 -'; dd if=/dev/zero bs=1k count=1; done >&3",
    "it sends a line for ever": "tr '\\0' x </dev/zero >&3",
    "it sends what is no copy": "echo hello >&3; sleep 1000",
    "it ends early": "echo 'file 644 0 100' >&3",
    "it ends early with a complaint": "echo 'no \033[31mroom' >&2; exit 3",
    "it drips": "echo 'file 644 0 1000000' >&3; echo >&3; echo 0 16 >&3; while :; do echo x >&3; sleep 0.1; done",
}
HOSTILE_SHELL = """#!/usr/bin/busybox sh
case $2 in
*port_named*)
    for one in /sys/class/virtio-ports/*; do
        read -r name <$one/name; [ "$name" != "$3" ] || exec 3<>/dev/${one##*/}
    done
    . /root/hostile;;
*) exec /usr/bin/busybox sh "$@";;
esac
"""


def test_hostile_shells_of_a_real_guest(state, here, monkeypatch):
    """However a guest behaves at its end of the line, a copy ends with one error, in time, and leaves nothing."""
    monkeypatch.setattr(exchange, "SMALL", -1)
    monkeypatch.setattr(exchange, "Line", functools.partial(Line, patience=1.0))
    monkeypatch.setattr(exchange, "_after", lambda _: 3.0)
    (here / "mine").write_bytes(bytes(3 << 20))

    async def talk(machine):
        async with machine.agent() as agent:
            await agent.wait(100)
            await agent.run(["sh", "-c", "mkdir /root/folder; echo x >/root/file; rm /usr/bin/sh"])
            await write(agent, "/usr/bin/sh", [HOSTILE_SHELL.encode()])
            await agent.run(["/usr/bin/busybox", "chmod", "755", "/usr/bin/sh"], bare=True)
            for kind, script in SHELLS.items():
                await write(agent, "/root/hostile", [script.encode()])
                for source in ("/root/file", "/root/folder"):
                    with pytest.raises(GuestError) as caught:
                        await copy.out_of_guest(agent, source, here / "to", directory=machine.directory, limit=1 << 20)
                    assert "\033" not in str(caught.value), kind
                    assert isinstance(caught.value, TimeLimitError) or "nothing" not in kind
                if "file" not in script and "for ever" not in kind:
                    with pytest.raises(GuestError):
                        await copy.into_guest(agent, here / "mine", "/root/to", directory=machine.directory)
                assert [path.name for path in here.iterdir()] == ["mine"], kind
                assert await ports(machine) == [], kind

    with tiny(state) as machine:
        run(talk(machine))


@pytest.mark.usefixtures("every_qemu")
def test_a_machine_is_saved_without_the_port(state):
    """A copy that was killed leaves one in QEMU; the next copy and the next checkpoint take it out."""
    folder = str(state)

    async def talk(machine):
        async with await connect_qmp(folder, owner=True) as session:
            async with port.plugged(folder) as end:
                assert end is not None
                assert len(await ports(machine)) == 2
                async with port.plugged(folder) as other:
                    assert other is None
                with pytest.raises(StateError, match="cannot be saved now"):
                    async with port.kept_out(folder, session):
                        pass
            assert await ports(machine) == []
            for _ in range(2):
                await leave(session)
                async with port.kept_out(folder, session):
                    assert await ports(machine) == []
                    async with port.plugged(folder) as end:
                        assert end is None
                await leave(session)
                async with port.plugged(folder) as end:
                    assert end is not None
                assert await ports(machine) == []

    async def leave(session):
        backend = {"type": "null", "data": {}}
        await session.execute("chardev-add", {"id": "tinamou-copy-line", "backend": backend})
        device = {"driver": "virtserialport", "id": "tinamou-copy", "chardev": "tinamou-copy-line"}
        await session.execute("device_add", device)

    with qemu(state, "-machine", "q35", "-device", "virtio-serial-pci,max_ports=2", binary=find_binary("x86_64")) as machine:
        run(talk(machine))


def test_a_machine_without_room_for_a_port_is_served_by_its_agent(state, here):
    (here / "data").write_bytes(os.urandom(1 << 20))

    async def talk(machine):
        async with machine.agent() as agent:
            await agent.wait(100)
            assert (await copy.into_guest(agent, here / "data", "/root/", directory=machine.directory)).verified
            assert (await copy.out_of_guest(agent, "/root/data", here / "back", directory=machine.directory)).verified
            assert (here / "back").read_bytes() == (here / "data").read_bytes()
            assert await left(machine, agent) == ""

    with tiny(state, "-global", "virtio-serial-pci.max_ports=2") as machine:
        run(talk(machine))

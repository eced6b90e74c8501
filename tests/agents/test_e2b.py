"""E2B's own client, unchanged, against the server: a short core always, thirty kinds of operations with the slow tests."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import operations_of_e2b as operations
import pytest
from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
)
from e2b_serving import Serving, until

from tinamou import machines

pytestmark = pytest.mark.vm


@pytest.fixture
def serving(monkeypatch):
    server = Serving(monkeypatch)
    yield server
    server.end(signal.SIGKILL)
    from tinamou import Machine

    for one in machines():
        Machine.open(one.name).remove(force=True)


def test_the_core(serving):
    """Made, used, forked, ended; found again by a server that was killed and started anew; over when its time is."""
    with Sandbox.create(envs={"WHO": "me"}, metadata={"a": "b c"}, idempotency_key="once") as sandbox:
        assert Sandbox.create(idempotency_key="once").sandbox_id == sandbox.sandbox_id
        done = sandbox.commands.run("echo $WHO; echo oh >&2")
        assert (done.stdout, done.stderr, done.exit_code) == ("me\n", "oh\n", 0)
        with pytest.raises(CommandExitException) as failed:
            sandbox.commands.run("exit 3")
        assert failed.value.exit_code == 3
        sandbox.files.write("work/a.txt", "hello")
        assert sandbox.files.read("/root/work/a.txt") == "hello"
        assert [one.path for one in sandbox.files.list("/root/work")] == ["/root/work/a.txt"]
        [fork] = sandbox.fork(timeout=300)
        sandbox.files.write("/root/work/a.txt", "changed")
        assert fork.commands.run("cat /root/work/a.txt").stdout == "hello"
        serving.end(signal.SIGKILL)
        serving.start()
        assert {one.sandbox_id for one in Sandbox.list().next_items()} == {sandbox.sandbox_id, fork.sandbox_id}
        assert Sandbox.connect(sandbox.sandbox_id).commands.run("cat work/a.txt").stdout == "changed"
        fork.set_timeout(1)
        until(lambda: len(machines()) == 1)
        assert not fork.is_running()
        assert sandbox.kill() and not sandbox.kill()
        with pytest.raises(SandboxNotRunningException):
            sandbox.commands.run("true")
    assert machines() == []


@pytest.mark.slow
def test_its_time_passes_while_nobody_serves(serving, state):
    sandbox = Sandbox.create()
    serving.end(signal.SIGKILL)
    assert [one.running for one in machines()] == [True]
    kept = state / f"sandboxes/{sandbox.sandbox_id}.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "deadline": time.time() - 1}))
    serving.start()
    until(lambda: not machines())
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()


@pytest.mark.slow
def test_commands_and_files(serving):
    with Sandbox.create() as sandbox:
        operations.commands(sandbox)
        operations.files(sandbox, "/root/top", serving.url)
        assert sandbox.commands.run("id -u; echo $MORE", user="nobody", envs={"MORE": "x"}).stdout == "65534\nx\n"
        with pytest.raises(AuthenticationException, match="no user"):
            sandbox.commands.run("true", user="user")
        sandbox.files.write("b.bin", b"\0\1\xff")
        assert bytes(sandbox.files.read("~/b.bin", format="bytes")) == b"\0\1\xff"
        sandbox.files.write("/tmp/nobody's", "mine", user="nobody")
        assert sandbox.files.get_info("/tmp/nobody's").owner in ("nobody", "65534")
        with pytest.raises(SandboxException, match="Permission denied"):
            sandbox.files.write("/etc/passwd", "mine", user="nobody")


@pytest.mark.slow
def test_lives(serving):
    """Information, metrics, lists, forks, snapshots, pause and resume, a life that ends in a pause."""
    with Sandbox.create(metadata={"a": "b c"}, timeout=600) as sandbox:
        info = sandbox.get_info()
        assert (info.state, info.metadata, info.cpu_count, info.memory_mb) == (SandboxState.RUNNING, {"a": "b c"}, 1, 512)
        [metric] = sandbox.get_metrics()
        assert 0 < metric.mem_used < metric.mem_total < 512 << 20 and metric.disk_total > 0
        assert len(Sandbox.list(query=SandboxQuery(metadata={"a": "b c"}, state=[SandboxState.RUNNING])).next_items()) == 1
        assert Sandbox.list(query=SandboxQuery(metadata={"a": "other"})).next_items() == []
        sandbox.files.write("/root/a", "kept")
        snapshot = sandbox.create_snapshot(name="mine")
        sandbox.files.write("/root/a", "later")
        pages = Sandbox.list(limit=1)
        forks = sandbox.fork(count=2, timeout=600)
        assert {one.commands.run("cat /root/a; hostname").stdout for one in forks} == {
            f"later{one.sandbox_id}\n" for one in forks
        }
        seen = []
        while pages.has_next:
            seen += pages.next_items()
        assert len(seen) == 3
        for name in (snapshot.snapshot_id, "mine"):
            copy = Sandbox.create(name)
            assert copy.files.read("/root/a") == "kept"
            copy.kill()
        assert [one.snapshot_id for one in Sandbox.list_snapshots().next_items()] == [snapshot.snapshot_id]
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) and not Sandbox.delete_snapshot(snapshot.snapshot_id)
        for one in forks:
            one.kill()
        assert sandbox.pause() and not sandbox.pause()
        with pytest.raises(SandboxNotRunningException):
            sandbox.commands.run("true")
        assert [one.state for one in Sandbox.list().next_items()] == [SandboxState.PAUSED]
        assert sandbox.connect().commands.run("cat /root/a").stdout == "later"
        sandbox.kill()
    paused = Sandbox.create(timeout=600, lifecycle={"on_timeout": "pause"})
    paused.set_timeout(0)
    until(lambda: paused.get_info().state == SandboxState.PAUSED)
    assert paused.connect().is_running()
    assert paused.kill()


@pytest.mark.slow
def test_from_asyncio(serving):
    """The asynchronous client watches by a stream, and several sandboxes at once."""

    async def session():
        sandboxes = await asyncio.gather(*(AsyncSandbox.create(timeout=600) for _ in range(3)))
        changed = asyncio.Event()
        watch = await sandboxes[0].files.watch_dir("/root", on_event=lambda _: changed.set())
        results = await asyncio.gather(*(one.commands.run("echo here >/root/a; hostname") for one in sandboxes))
        assert [one.stdout.strip() for one in results] == [one.sandbox_id for one in sandboxes]
        await asyncio.wait_for(changed.wait(), 60)
        await watch.stop()
        await asyncio.gather(*(one.kill() for one in sandboxes))

    asyncio.run(session())
    assert machines() == []

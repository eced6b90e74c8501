"""E2B's own client, unchanged, against the server: a short core always, thirty kinds of operations with the slow tests."""

from __future__ import annotations

import asyncio
import signal
import time

import httpx2
import pytest
from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    FileNotFoundException,
    NotFoundException,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
    TimeoutException,
)
from e2b.sandbox.commands.command_handle import PtySize
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


def test_its_time_passes_while_nobody_serves(serving):
    sandbox = Sandbox.create(timeout=3)
    serving.end(signal.SIGKILL)
    assert [one.running for one in machines()] == [True]
    deadline = time.time() + 3
    until(lambda: time.time() > deadline)
    serving.start()
    until(lambda: not machines())
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()


@pytest.mark.slow
def test_commands(serving):
    with Sandbox.create() as sandbox:
        heard = []
        sandbox.commands.run("for i in 1 2 3; do echo $i; sleep 0.1; done", on_stdout=heard.append)
        assert "".join(heard) == "1\n2\n3\n"
        assert sandbox.commands.run("pwd", cwd="/tmp").stdout == "/tmp\n"
        assert sandbox.commands.run("id -u; echo $MORE", user="nobody", envs={"MORE": "x"}).stdout == "65534\nx\n"
        with pytest.raises(AuthenticationException, match="no user"):
            sandbox.commands.run("true", user="user")
        with pytest.raises(TimeoutException):
            sandbox.commands.run("sleep 60", timeout=1)
        until(lambda: not sandbox.commands.list())
        large = sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' x")
        assert len(large.stdout) == 3_000_000
        handle = sandbox.commands.run("cat; echo end", background=True, stdin=True)
        assert [one.args[-1] for one in sandbox.commands.list()] == ["cat; echo end"]
        sandbox.commands.send_stdin(handle.pid, "typed\n")
        sandbox.commands.close_stdin(handle.pid)
        assert handle.wait().stdout == "typed\nend\n"
        handle = sandbox.commands.run("echo before; cat", background=True, stdin=True)
        again = sandbox.commands.connect(handle.pid)
        sandbox.commands.send_stdin(handle.pid, "both\n")
        assert sandbox.commands.kill(handle.pid) and not sandbox.commands.kill(handle.pid)
        for one in (handle, again):
            with pytest.raises(CommandExitException) as killed:
                one.wait()
            assert killed.value.exit_code == -1 and "both\n" in killed.value.stdout
        terminal = sandbox.pty.create(PtySize(rows=24, cols=80))
        sandbox.pty.resize(terminal.pid, PtySize(rows=30, cols=100))
        sandbox.pty.send_stdin(terminal.pid, b"stty size; exit 4\n")
        seen = bytearray()
        with pytest.raises(CommandExitException) as left:
            terminal.wait(on_pty=seen.extend)
        assert left.value.exit_code == 4 and b"30 100" in seen
        with pytest.raises(NotFoundException):
            sandbox.commands.connect(1)


@pytest.mark.slow
def test_files(serving):
    with Sandbox.create() as sandbox:
        files = sandbox.files
        files.write("b.bin", b"\0\1\xff")
        assert bytes(files.read("~/b.bin", format="bytes")) == b"\0\1\xff"
        assert [
            one.path for one in files.write_files([{"path": "/tmp/1", "data": "a"}, {"path": "/tmp/q/2", "data": "b"}])
        ] == [
            "/tmp/1",
            "/tmp/q/2",
        ]
        files.write("/tmp/large", b"xyz" * 1_000_000, gzip=True)
        assert b"".join(files.read("/tmp/large", format="stream")) == b"xyz" * 1_000_000
        files.write("/tmp/nobody's", "mine", user="nobody")
        assert files.get_info("/tmp/nobody's").owner == "nobody" or files.get_info("/tmp/nobody's").owner == "65534"
        with pytest.raises(SandboxException, match="Permission denied"):
            files.write("/etc/passwd", "mine", user="nobody")
        assert files.make_dir("/root/x/y") and not files.make_dir("/root/x/y")
        files.write("/root/x/y/with space\nand line", "1")
        assert {one.name: one.type.value for one in files.list("/root/x", depth=2)} == {
            "y": "dir",
            "with space\nand line": "file",
        }
        moved = files.rename("/root/b.bin", "/root/new/c.bin")
        assert (moved.path, moved.size, moved.permissions) == ("/root/new/c.bin", 3, "-rw-r--r--")
        assert files.get_info("/bin").symlink_target == "usr/bin"
        assert files.exists("/root/new/c.bin") and not files.exists("/root/b.bin")
        files.remove("/root/x")
        assert not files.exists("/root/x")
        for path in ("/nope", "/root/x/y"):
            with pytest.raises(FileNotFoundException):
                files.read(path)
            with pytest.raises(FileNotFoundException):
                files.list(path)
        signed = sandbox.download_url("/tmp/1", use_signature_expiration=60)
        assert httpx2.get(signed).text == "a"
        assert httpx2.get(signed.replace("%2F1", "%2Flarge").replace("/tmp/1", "/tmp/large")).status_code == 401
        sent = httpx2.post(sandbox.upload_url("/tmp/up"), files={"file": ("up", b"sent")})
        assert sent.status_code == 200 and files.read("/tmp/up") == "sent"
        assert (
            httpx2.get(f"{serving.url}/files?path=/tmp/1", headers={"E2b-Sandbox-Id": sandbox.sandbox_id}).status_code == 401
        )
        watch = files.watch_dir("/root/new", recursive=True)
        files.write("/root/new/deep/file", "1")
        found = []
        until(lambda: found.extend(watch.get_new_events()) or {"deep", "deep/file"} <= {one.name for one in found})
        watch.stop()


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

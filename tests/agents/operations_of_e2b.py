"""What a program does in a sandbox by E2B's client, whatever the sandbox is: each function is given one."""

from __future__ import annotations

import httpx2
import pytest
from e2b import CommandExitException, FileNotFoundException, NotFoundException, TimeoutException
from e2b.sandbox.commands.command_handle import PtySize
from e2b_serving import until


def commands(sandbox):
    """Run, hear, list, write to, connect to, signal, at a terminal."""
    heard = []
    sandbox.commands.run("for i in 1 2 3; do echo $i; sleep 0.1; done", on_stdout=heard.append)
    assert "".join(heard) == "1\n2\n3\n"
    both = sandbox.commands.run("pwd; echo $MORE; echo oh >&2; exit 0", cwd="/tmp", envs={"MORE": "x"})
    assert (both.stdout, both.stderr) == ("/tmp\nx\n", "oh\n")
    with pytest.raises(CommandExitException) as failed:
        sandbox.commands.run("exit 3")
    assert failed.value.exit_code == 3
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 60", timeout=1)
    until(lambda: not sandbox.commands.list())
    large = sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert len(large.stdout) == 3_000_000
    _background(sandbox)
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80))
    sandbox.pty.resize(terminal.pid, PtySize(rows=30, cols=100))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; exit 4\n")
    seen = bytearray()
    with pytest.raises(CommandExitException) as left:
        terminal.wait(on_pty=seen.extend)
    assert left.value.exit_code == 4 and b"30 100" in seen


def _background(sandbox):
    handle = sandbox.commands.run("cat; echo end", background=True, stdin=True)
    assert [one.args[-1] for one in sandbox.commands.list()] == ["cat; echo end"]
    sandbox.commands.send_stdin(handle.pid, "typed\n")
    sandbox.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "typed\nend\n"
    handle = sandbox.commands.run("echo before; cat", background=True, stdin=True)
    again = sandbox.commands.connect(handle.pid)
    sandbox.commands.send_stdin(handle.pid, "both\n")
    heard = []
    for out, _, _ in handle:
        heard.append(out or "")
        if "both\n" in "".join(heard):
            break
    assert sandbox.commands.kill(handle.pid)
    until(lambda: not sandbox.commands.kill(handle.pid))
    with pytest.raises(CommandExitException) as killed:
        again.wait()
    assert killed.value.exit_code == -1 and "both\n" in killed.value.stdout
    with pytest.raises(NotFoundException):
        sandbox.commands.connect(handle.pid)


def files(sandbox, top, url):
    """Write, read, list, move, remove, watch files below the folder ``top``; by signed URLs too."""
    files = sandbox.files
    two = files.write_files([{"path": f"{top}/1", "data": "a"}, {"path": f"{top}/q/2", "data": b"\0\xff"}])
    assert [one.path for one in two] == [f"{top}/1", f"{top}/q/2"]
    assert files.read(f"{top}/1") == "a" and bytes(files.read(f"{top}/q/2", format="bytes")) == b"\0\xff"
    files.write(f"{top}/large", b"xyz" * 1_000_000, gzip=True)
    assert b"".join(files.read(f"{top}/large", format="stream")) == b"xyz" * 1_000_000
    files.write(f"{top}/empty", "")
    assert files.read(f"{top}/empty") == ""
    assert files.make_dir(f"{top}/x/y") and not files.make_dir(f"{top}/x/y")
    files.write(f"{top}/x/y/with space\nand line", "1")
    listed = {one.name: one.type.value for one in files.list(f"{top}/x", depth=2)}
    assert listed == {"y": "dir", "with space\nand line": "file"}
    moved = files.rename(f"{top}/q/2", f"{top}/new/c.bin")
    assert (moved.path, moved.size, moved.permissions) == (f"{top}/new/c.bin", 2, "-rw-r--r--")
    sandbox.commands.run(f"ln -s c.bin {top}/new/link")
    assert files.get_info(f"{top}/new/link").symlink_target == "c.bin"
    assert files.exists(f"{top}/new/c.bin") and not files.exists(f"{top}/q/2")
    files.remove(f"{top}/x")
    assert not files.exists(f"{top}/x")
    for path in (f"{top}/nope", f"{top}/x/y"):
        with pytest.raises(FileNotFoundException):
            files.read(path)
        with pytest.raises(FileNotFoundException):
            files.list(path)
    _by_url(sandbox, top, url)
    watch = files.watch_dir(f"{top}/new", recursive=True)
    files.write(f"{top}/new/deep/file", "1")
    found = []
    until(lambda: found.extend(watch.get_new_events()) or {"deep", "deep/file"} <= {one.name for one in found})
    watch.stop()


def _by_url(sandbox, top, url):
    signed = sandbox.download_url(f"{top}/1", use_signature_expiration=60)
    assert httpx2.get(signed).text == "a"
    parts = httpx2.URL(signed).params
    for name, value in {"path": f"{top}/large", "signature_expiration": "1", "username": "root"}.items():
        assert httpx2.get(f"{url}/files", params={**parts, name: value}).status_code == 401
    sent = httpx2.post(sandbox.upload_url(f"{top}/up"), files={"file": ("up", b"sent")})
    assert sent.status_code == 200 and sandbox.files.read(f"{top}/up") == "sent"
    bare = {"E2b-Sandbox-Id": sandbox.sandbox_id}
    assert httpx2.get(f"{url}/files", params={"path": f"{top}/1"}, headers=bare).status_code == 401

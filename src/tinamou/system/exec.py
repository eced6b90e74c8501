"""Run a command with a clean environment, and say how to repeat it by hand when it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tinamou.late import dataclass

if TYPE_CHECKING:
    from subprocess import TimeoutExpired

__all__ = ["CommandError", "TimeoutExpired", "clean_environment", "find_tool", "piped", "run", "run_whole"]

_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "TERM", "USER", "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy")
_BEYOND_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/libexec", "/usr/lib/qemu")
_GOING_SECONDS = 10.0


def __getattr__(name: str) -> object:
    """``TimeoutExpired``; starting a machine needs nothing of the library it comes from."""
    if name != "TimeoutExpired":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import subprocess

    return subprocess.TimeoutExpired


@dataclass
class CommandError(Exception):
    """A command ended with a status other than 0; ``replay`` is a line to paste into a shell."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def replay(self) -> str:
        """The command as it can be pasted into a shell."""
        import shlex

        return shlex.join(self.argv)

    def __str__(self) -> str:
        tail = "\n".join((self.stderr or self.stdout).strip().splitlines()[-15:])
        return f"{self.argv[0]} ended with status {self.status}: {tail}\nrepeat it by hand: {self.replay}"


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The few variables a command may inherit, C.UTF-8 as locale, plus ``extra``."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {**kept, "LC_ALL": "C.UTF-8", **(extra or {})}


def find_tool(name: str) -> str | None:
    """The path of a command, looked up in PATH and the sbin folders an ordinary user's PATH lacks."""
    places = [name] if "/" in name else [f"{folder}/{name}" for folder in (*os.get_exec_path(), *_BEYOND_PATH)]
    return next((place for place in places if os.access(place, os.X_OK) and Path(place).is_file()), None)


@contextmanager
def piped(argv: Sequence[str], source: IO[bytes]) -> Iterator[IO[bytes]]:
    """What a command makes of a file, as a stream. Raises CommandError where it was read to its end and the command failed.

    A reader that has enough leaves earlier: the command is ended then.
    """
    import subprocess

    environment = clean_environment()
    os.lseek(source.fileno(), source.tell(), os.SEEK_SET)  # what Python has read ahead, the command has not
    with subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            yield process.stdout
            if not process.stdout.read(1) and process.wait():
                said = process.stderr.read(4096).decode("utf-8", "replace")
                raise CommandError(tuple(argv), process.returncode, "", said)
        finally:
            process.kill()


def run(
    argv: Sequence[str],
    *,
    input: str | bytes | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    pass_fds: Sequence[int] = (),
) -> str:
    """Run to the end, return stdout. Raises CommandError, FileNotFoundError, subprocess.TimeoutExpired (seconds).

    What the command is to read is all there before it starts: it reads to the end even when this process is killed, where
    from a pipe it might wait for ever.
    """
    import subprocess

    with _readable(input) as stdin:
        done = subprocess.run(
            list(argv),
            stdin=stdin,
            capture_output=True,
            env=clean_environment(environment),
            cwd=cwd,
            timeout=timeout,
            pass_fds=tuple(pass_fds),
            check=False,
        )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode != 0:
        raise CommandError(tuple(argv), done.returncode, out, err)
    return out


def run_whole(argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> str:
    """As `run`, of a program that starts others: whatever ends the wait for it ends all of them.

    They are a process group of their own, so that Ctrl-C is this process's alone to heed. The program itself, not those it
    started, is ended when this process is killed. Raises CommandError, FileNotFoundError.
    """
    import signal
    import subprocess
    from contextlib import suppress

    tied = [find_tool("setpriv") or "setpriv", "--pdeathsig", "KILL", "--", *argv]
    with subprocess.Popen(
        tied,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(environment),
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # the last one that is gone closes its end of the output
                process.communicate(timeout=_GOING_SECONDS)
            raise
    out, err = (one.decode(errors="replace") for one in said)
    if process.returncode:
        raise CommandError(tuple(argv), process.returncode, out, err)
    return out


@contextmanager
def _readable(data: str | bytes | None) -> Iterator[IO[bytes] | int]:
    """A file without a name that holds the data, at its beginning."""
    if data is None:
        import subprocess

        yield subprocess.DEVNULL
        return
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.seek(0)
        yield file

"""What is to be run in a guest, checked, how it ended, and the errors that both ways into a guest have in common."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence

from tinamou.errors import GuestError, NoCommandError, Problem, SpecError
from tinamou.late import dataclass, field

__all__ = [
    "CAPTURED",
    "Command",
    "Completed",
    "Hear",
    "Input",
    "command",
    "completed",
    "is_windows_path",
    "kept",
    "no_folder",
    "no_user",
    "not_found",
    "pieces",
]

CAPTURED = 16 << 20
"""Bytes of each stream that are kept where a command's output is given at its end, as a guest's agent does (source: qga,
GUEST_EXEC_MAX_OUTPUT); `stream` has no such limit."""

Input = bytes | AsyncIterable[bytes] | None
"""A command's standard input: whole, or piece by piece while it runs; None is an empty one."""

Hear = Callable[[bytes], None]
"""Is given a command's output, piece by piece."""


@dataclass(frozen=True)
class Completed:
    """How a command in the guest ended: ``status`` is its exit status, or -N when signal N ended it.

    ``truncated`` says that output beyond 16 MiB per stream was dropped.
    """

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False

    @property
    def exit_status(self) -> int:
        """The status as a shell reports it: 128 + N for signal N, at most 255."""
        return min(self.status if self.status >= 0 else 128 - self.status, 255)

    @property
    def text(self) -> str:
        """Standard output as text, without the newline at its end."""
        return self.stdout.decode(errors="replace").rstrip("\n")


@dataclass(frozen=True)
class Command:
    """A command: its words, the folder it begins in (the user's home when empty), its user (root when empty).

    Its environment is that of a login of the user, and ``env`` on top.
    """

    argv: tuple[str, ...]
    cwd: str = ""
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(self.argv)


def command(argv: Sequence[str], *, cwd: str = "", user: str = "", env: Mapping[str, str] | None = None) -> Command:
    """A command that can be sent. Raises GuestError where there is none, SpecError with every problem."""
    if not argv or not argv[0]:
        raise GuestError("There is no command to run", fix="name one: tinamou exec NAME -- COMMAND")
    given = dict(env or {})
    problems = [*_bad_text(argv, cwd, user, given), *_bad_names(given)]
    if cwd and not (cwd.startswith("/") or is_windows_path(cwd)):
        problems.append(Problem("cwd", cwd, "not a path from the guest's root", "begin it with /, or C:\\ in a Windows"))
    if ":" in user:
        problems.append(Problem("user", user, "a group cannot be chosen", "the name or number of a user, without a colon"))
    if problems:
        raise SpecError("The command cannot be run like this", problems=problems)
    return Command(tuple(argv), cwd, user, given)


def is_windows_path(path: str) -> bool:
    """Whether it is a whole path of a Windows guest: ``C:\\Users`` or ``C:/Users``."""
    return path[1:2] == ":" and path[2:3] in ("\\", "/") and path[0].isascii() and path[0].isalpha()


def _bad_text(argv: Sequence[str], cwd: str, user: str, env: Mapping[str, str]) -> list[Problem]:
    texts = [("command", word) for word in argv] + [("cwd", cwd), ("user", user)]
    texts += [("env", f"{name}={value}") for name, value in env.items()]
    return [
        Problem(what, text, "holds a NUL character, which ends a text there", "leave it out")
        for what, text in texts
        if "\0" in text
    ]


def _bad_names(env: Mapping[str, str]) -> list[Problem]:
    wrong = [name for name in env if not name or "=" in name]
    return [Problem("env", name, "not the name of a variable", "a name without =") for name in wrong]


def no_user(user: str) -> GuestError:
    """The error for a user the guest does not have."""
    why = "its accounts have no such name or number"
    return GuestError(
        f"There is no user {user} in the guest", why=why, fix="tinamou exec NAME -- cat /etc/passwd lists them"
    )


def no_folder(cwd: str, reason: str) -> GuestError:
    """The error for a folder a command cannot begin in."""
    return GuestError(f"The command cannot begin in the folder {cwd} of the guest", why=reason)


def not_found(name: str, reason: str) -> NoCommandError:
    """The error for a program that cannot be started."""
    return NoCommandError(f"The guest could not start {name}", why=reason)


async def pieces(input: Input, size: int) -> AsyncIterator[bytes]:
    """The input in pieces of at most ``size`` bytes, none of them empty."""
    if input is None:
        return
    if isinstance(input, bytes):
        for start in range(0, len(input), size):
            yield input[start : start + size]
        return
    async for data in input:
        for start in range(0, len(data), size):
            yield data[start : start + size]


def completed(status: int, out: bytearray, err: bytearray) -> Completed:
    """The end of a command whose output was `kept`."""
    more = max(len(out), len(err)) > CAPTURED
    return Completed(status, bytes(out[:CAPTURED]), bytes(err[:CAPTURED]), more)


def kept(into: bytearray) -> Hear:
    """Keeps output up to the bound, and one byte more where there was more."""

    def hear(piece: bytes) -> None:
        into.extend(piece[: max(CAPTURED + 1 - len(into), 0)])

    return hear

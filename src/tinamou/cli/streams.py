"""What a user says about a command in a guest, and this command's own input and output as those of it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from tinamou.cli import output
from tinamou.errors import Problem, SpecError
from tinamou.late import dataclass
from tinamou.system import terminal

if TYPE_CHECKING:
    from tinamou.guest.command import Command

__all__ = ["Given", "given_input", "hearing"]

_CONVERSING = frozenset(("ash", "bash", "dash", "fish", "ksh", "node", "perl", "psql", "python", "python3", "sh", "zsh"))
"""Programs that, without a word more, want to talk to somebody at a terminal."""


@dataclass(frozen=True)
class Given:
    """The options of a command in a guest; ``env`` as NAME=VALUE, or NAME for the value it has here."""

    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    interactive: bool = False
    tty: bool = False

    def named(self) -> list[str]:
        """Those that say something about a command; a console, where there is none, is interactive and a terminal anyway."""
        given = {"--env": self.env, "--workdir": self.workdir, "--user": self.user}
        return [option for option, value in given.items() if value]

    def command(self, words: Sequence[str]) -> Command:
        """The command. Raises SpecError for what is not understood, and where the input cannot be its terminal."""
        from tinamou.guest.command import command

        env = _variables(self.env, os.environ)
        if self.tty:
            _need_terminal()
            from tinamou.guest.terminal import kind

            env = {"TERM": kind(), **env}
        return command(words, cwd=self.workdir, user=self.user, env=env)


def _variables(given: tuple[str, ...], here: Mapping[str, str]) -> dict[str, str]:
    """NAME=VALUE, or NAME of this host's environment. Raises SpecError with every one that is neither."""
    problems = []
    for one in given:
        name, equals, _ = one.partition("=")
        if not name:
            problems.append(Problem("--env", one, "has no name", "write NAME=VALUE"))
        elif not equals and name not in here:
            problems.append(Problem("--env", one, "this host's environment has no such variable", "write NAME=VALUE"))
    if problems:
        raise SpecError("--env is not understood", problems=problems)
    return {name: value if equals else here[name] for name, equals, value in (one.partition("=") for one in given)}


def _need_terminal() -> None:
    """Raises SpecError where the input is no terminal that a guest's could be."""
    if not terminal.is_terminal(0):
        fix = "leave out -t: input is passed on without it too"
        problem = Problem("--tty", True, "the input here is not a terminal", fix)
        raise SpecError("The command cannot be given a terminal", problems=[problem])


def given_input(words: Sequence[str], instead: str, *, typed: bool = False) -> AsyncIterator[bytes] | None:
    """What comes on standard input, piece by piece; what is typed at a terminal only where that is asked for.

    Without it, who begins a shell at a terminal is told what to type ``instead``.
    """
    if not terminal.is_terminal(0) or typed:
        return terminal.read_all(0)
    if len(words) == 1 and words[0].rpartition("/")[2] in _CONVERSING:
        output.warn(f"{words[0]} has neither a terminal nor input like this; to work in it: {instead}")
    return None


def hearing() -> tuple[Callable[[bytes], None], Callable[[bytes], None]]:
    """What writes a guest's output and errors here, as they come."""
    return _to(sys.stdout.buffer), _to(sys.stderr.buffer)


def _to(stream: BinaryIO) -> Callable[[bytes], None]:
    def hear(piece: bytes) -> None:
        stream.write(piece)
        stream.flush()

    return hear

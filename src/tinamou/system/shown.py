"""Texts that come from guests, QEMU and files, as a terminal may be sent them: nothing in them moves its cursor."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterable
from typing import IO, Any, cast

__all__ = ["guard", "say_last", "unguarded", "visible"]

_UNSEEN = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
"""Control characters but for the end of a line and the tabulator, what turns the direction of writing, half characters."""


def visible(text: str) -> str:
    """The text with every character that cannot be seen spelled out, ``\\x1b``."""
    if text.replace("\n", "").isprintable():
        return text
    return re.sub(_UNSEEN, lambda match: match[0].encode("unicode_escape").decode(), text)


class _Guarded:
    """A stream whose text is made visible on its way; its bytes (``buffer``) are not. rich writes around it."""

    def __init__(self, stream: IO[str]) -> None:
        self.rich_proxied_file: IO[str] = stream
        self.line_begun: bool = False

    def write(self, text: str) -> int:
        written = self.rich_proxied_file.write(visible(text))
        self.line_begun = not text.endswith("\n") if text else self.line_begun
        return written

    def writelines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def guard() -> None:
    """From now on nothing that is printed reaches the terminal unseen, nor can it fail for want of a character.

    A request to end waits meanwhile (there are no other threads yet): a stream whose change is cut short writes nothing
    more, not even why the command ended.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Guarded):
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="backslashreplace")
                setattr(sys, name, _Guarded(stream))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def say_last(text: str) -> None:
    """Say a line on standard error, on a line of its own also where another was cut short."""
    begun = getattr(sys.stderr, "line_begun", False)
    print(f"\n{text}" if begun else text, file=sys.stderr)


def unguarded(stream: IO[str]) -> IO[str]:
    """The stream itself, for what moves the cursor because we want it to."""
    return cast("IO[str]", getattr(stream, "rich_proxied_file", stream))

"""User-data as cloud-init takes it: which form a document has, and what in it would be skipped with a warning nobody reads.

Sources: the cloud-init reference (user-data formats), cloudinit/user_data.py, cloudinit/handlers/__init__.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tinamou.errors import Problem

__all__ = ["kind_of", "problems_of", "without_envelope"]

_KINDS = (
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    ("#cloud-config", "text/cloud-config"),
    ("#!", "text/x-shellscript"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("#part-handler", "text/part-handler"),
    ("## template: jinja", "text/jinja2"),
)
_MIME = re.compile(r"(?:From [^\n]*\n)?(?:[A-Za-z-]+:[^\n]*\n(?:[ \t][^\n]*\n)*)*?(?i:MIME-Version|Content-Type):")
_HEAD = 4096
"""Characters in which cloud-init looks for the head of a MIME document."""

_GUESSED = ("text/plain", "application/octet-stream", "text/x-not-multipart")
"""Types of a part that cloud-init tells by its first line."""

_UNREAD = (
    "application/gzip",
    "application/x-gzip",
    "application/x-compressed",
    "application/x-compress",
    "application/x-tar",
)
_SCRIPTS = ("text/x-shellscript-per-boot", "text/x-shellscript-per-instance", "text/x-shellscript-per-once")
_KNOWN = frozenset((*(kind for _, kind in _KINDS), *_SCRIPTS))
_BEGIN = "begin it with #cloud-config, or #! for a script"


def kind_of(text: str) -> str | None:
    """The MIME type of a document by its first line, as cloud-init tells it; ``mime`` when it is MIME itself."""
    if text[:1] != "#" and _MIME.match(text[:_HEAD]):
        return "mime"
    return next((kind for start, kind in _KINDS if text.startswith(start)), None)


def without_envelope(text: str) -> str:
    """A MIME document without the line that mailboxes begin with, which has no place inside another one."""
    return text.partition("\n")[2] if text.startswith("From ") else text


def problems_of(text: str, path: str) -> Iterator[Problem]:
    """What cloud-init would not take, in a document or in any of its parts."""
    kind = kind_of(text)
    if kind is None:
        shown = text.strip().splitlines()[0][:40] if text.strip() else ""
        yield Problem(path, shown, "cloud-init would ignore it: its first line names no known form", _BEGIN)
    elif kind == "mime":
        yield from _of_parts(text, path)
    else:
        yield from _of_one(text, kind, path)


def _of_one(text: str, kind: str, path: str, above: int = 0, where: str = "") -> Iterator[Problem]:
    """``above`` lines of the whole document stand before this one."""
    if kind in ("text/cloud-config", "text/cloud-config-archive") and not text.startswith("## template: jinja"):
        expected = "a list" if kind.endswith("archive") else "a table"
        found, reason = _read(text, expected, above)
        if reason:
            yield Problem(path, None, f"{where}{reason}", "correct that line; it is YAML")
        elif isinstance(found, list):
            yield from _of_archive(found, path, where)


def _of_archive(entries: list[object], path: str, where: str) -> Iterator[Problem]:
    """Each document in an archive of them; what says no type, and has none by its first line, is a #cloud-config there."""
    for number, entry in enumerate(entries, 1):
        said = entry if isinstance(entry, dict) else {"content": entry}
        content = said.get("content", "")
        if not isinstance(content, str):
            continue
        kind = said.get("type") or kind_of(content) or "text/cloud-config"
        if kind == "text/cloud-config":
            yield from _of_one(content, kind, path, where=f"{where}part {number}: ")


def _read(text: str, expected: str, above: int) -> tuple[object, str]:
    """What a document holds, and why cloud-init could not read it, empty where it can."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(text, loader)  # noqa: S506 (a safe loader, in C where there is one)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {above + mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return None, f"{place}{error.problem or error.context}"
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return None, f"line {above + line}: the character {error.character!r} cannot be in YAML"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, f"line {above + 1}: {str(error).splitlines()[0] or 'nested too deep'}"
    kind = list if expected == "a list" else dict
    if (found is None and kind is dict) or isinstance(found, kind):
        return found, ""
    return None, f"line {above + 2}: it is no {expected[2:]} but {_said(found)}: cloud-init would skip it"


def _said(found: object) -> str:
    return {str: "a text", list: "a list", dict: "a table", type(None): "nothing"}.get(type(found), "a single value")


def _of_parts(text: str, path: str) -> Iterator[Problem]:
    """Each part of a MIME document that cloud-init would have to read."""
    import email
    from email.errors import MessageError

    try:
        whole = email.message_from_string(without_envelope(text))
        parts = [part for part in whole.walk() if not part.is_multipart()]
    except (MessageError, ValueError, RecursionError) as error:
        yield Problem(path, None, f"not a MIME document: {error}", "make one with: cloud-init devel make-mime")
        return
    if whole.get_content_maintype() == "multipart" and not whole.is_multipart():
        why = "a multi-part document without parts: its boundary is missing, or never appears"
        yield Problem(path, None, why, "make one with: cloud-init devel make-mime")
        return
    for number, part in enumerate(parts, 1):
        yield from _of_part(text, part, f"part {number}: ", path)


def _of_part(text: str, part: object, where: str, path: str) -> Iterator[Problem]:
    from email.message import Message

    assert isinstance(part, Message)
    given = part.get_content_type()
    raw = part.get_payload(decode=True)
    if given in _UNREAD or not isinstance(raw, bytes):
        return
    content = raw.decode(errors="replace")
    kind = kind_of(content) if given in _GUESSED else given
    if kind is None or (kind != "mime" and kind not in _KNOWN):
        shown = content.strip().splitlines()[0][:40] if content.strip() else ""
        reason = f"{where}cloud-init would ignore it: " + (f"type {given}" if given not in _GUESSED else "no known form")
        yield Problem(path, shown, reason, _BEGIN)
    elif kind != "mime":
        plain = part.get_payload()
        at = text.find(plain) if isinstance(plain, str) and plain and content.strip() == plain.strip() else -1
        yield from _of_one(content, kind, path, text.count("\n", 0, at) if at >= 0 else 0, where)

"""XML of other tools, read without entities, external references or document types, by elements that know what was read.

Source: the Python documentation, *xml.parsers.expat*; the defusedxml documentation, *XML Attacks*, on what must be refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.parsers import expat

from tinamou.convert.account import HIDDEN, hidden
from tinamou.errors import SpecError

__all__ = ["Element", "attribute", "children", "documents", "parse", "root_of", "shown_of", "text_of"]


_MOST, _DEEPEST = 20_000, 64
_ROOT = re.compile(r"<(?:[\w.-]{1,64}:)?([\w.-]{1,64})[\s>/]")
_BLANK = re.compile(r"\s*")
_DECLARED = re.compile(r"<\?xml[^>]*\?>")
_SEVERAL = 9
"""Expat's number for what follows the end of a document."""


class Element:
    """An element, its namespaces left out of all names. What is asked of it counts as read; the rest is `unread`."""

    __slots__ = ("_attributes", "_read", "_unread", "inside", "pieces", "seen", "tag")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag: str = tag
        self._attributes = attributes
        self.inside: list[Element] = []
        self.pieces: list[str] | None = None
        """Of its text, while it is parsed; None where there is none."""
        self._unread = attributes.copy() if attributes else attributes
        self._read = False
        self.seen: bool = False

    def get(self, key: str, default: str = "") -> str:
        """An attribute."""
        self.seen = True
        self._unread.pop(key, None)
        return self._attributes.get(key, default)

    @property
    def attrib(self) -> dict[str, str]:
        """All attributes."""
        self.seen = True
        self._unread.clear()
        return self._attributes

    @property
    def text(self) -> str:
        """The text in it, without that of the elements in it."""
        self.seen = self._read = True
        return self._said()

    def _said(self) -> str:
        return "".join(self.pieces).strip() if self.pieces else ""

    def __iter__(self) -> Iterator[Element]:
        return iter(self.inside)

    def findall(self, path: str) -> list[Element]:
        """All elements at a path of names; ``*`` is any. They count as seen, what they say does not."""
        found = [self]
        for name in path.split("/"):
            if name == "*":
                found = [below for one in found for below in one.inside]
            else:
                found = [below for one in found for below in one.inside if below.tag == name]
            for one in found:
                one.seen = True
        return found

    def find(self, path: str) -> Element | None:
        """The first element at a path; another one beside it does not count as seen."""
        found = self
        for name in path.split("/") if "/" in path else (path,):
            for below in found.inside:
                if below.tag == name:
                    break
            else:
                return None
            below.seen = True
            found = below
        return found

    def iter(self, tag: str) -> Iterator[Element]:
        """All elements of that name, at any depth."""
        for one in self.inside:
            if one.tag == tag:
                one.seen = True
                yield one
            if one.inside:
                yield from one.iter(tag)

    def shown(self) -> str:
        """All it says on one line, for a note: it counts as read with everything in it."""
        self.seen = self._read = True
        self._unread.clear()
        words = [f"{key}={self._open(key, value)}" for key, value in self._attributes.items()]
        if said := self._said():
            words.append(hidden(self.tag, said))
        words += [f"{one.tag}({below})" if (below := one.shown()) else one.tag for one in self.inside]
        return " ".join(words)

    def _open(self, key: str, value: str) -> str:
        """An attribute as a note may show it; ``value`` is that of what ``key`` or ``name`` beside it says."""
        if key not in ("value", "default"):
            return hidden(f"{self.tag}/{key} ", value)
        if value and self._attributes.get("password") == "true":
            return HIDDEN
        return hidden(f"{self.tag}/{key} {self._attributes.get('key') or self._attributes.get('name') or ''}", value)

    def unread(self, place: str = "") -> list[tuple[str, str]]:
        """What nobody has asked for: its place, ``devices/disk/@type``, and its value; an element not seen comes whole."""
        found: list[tuple[str, str]] = []
        self._leave(place, found)
        return found

    def _leave(self, place: str, found: list[tuple[str, str]]) -> None:
        above = f"{place}/" if place else ""
        for key, value in self._unread.items():
            found.append((f"{above}@{key}", value))
        if not self._read and self.pieces and (said := self._said()):
            found.append((place or self.tag, said))
        for one in self.inside:
            if not one.seen:
                found.append((above + one.tag, one.shown()))
            elif one.inside or one._unread or not one._read:
                one._leave(above + one.tag, found)


def root_of(text: str) -> str:
    """The name of a document's root, without its namespace; empty where it is no XML."""
    at = 1 if text.startswith("\ufeff") else 0
    while at >= 0:
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if text.startswith("<?", at):
            at = _behind(text, "?>", at)
        elif text.startswith("<!--", at):
            at = _behind(text, "-->", at)
        elif text.startswith("<!DOCTYPE", at):
            subset, ends = text.find("[", at), text.find(">", at)
            at = _behind(text, ">", max(text.find("]", subset), subset) if 0 <= subset < ends else at)
        else:
            match = _ROOT.match(text, at)
            return match[1] if match else ""
    return ""


def _behind(text: str, end: str, at: int) -> int:
    """The place behind the next such end; -1 where there is none."""
    found = text.find(end, at)
    return found + len(end) if found >= 0 else -1


def parse(text: str, what: str) -> Element:
    """The root. Raises SpecError for what is no XML, and for a document type in it."""
    return documents(text, what)[0]


def documents(text: str, what: str) -> list[Element]:
    """The root of each document in a text: several in a row are one after the other."""
    try:
        return [_built(text, what)]
    except expat.ExpatError as error:
        if error.code != _SEVERAL:
            raise _no_xml(what, str(error)) from error
    except (ValueError, LookupError) as error:
        raise _no_xml(what, str(error)) from error
    try:
        return list(_built(f"<all>{_DECLARED.sub('', text)}</all>", what))
    except (expat.ExpatError, ValueError) as error:
        raise _no_xml(what, str(error)) from error


def _no_xml(what: str, why: str) -> SpecError:
    return SpecError(f"{what} is not XML", why=why, fix="export it again")


def _built(text: str, what: str) -> Element:
    """The root. What is called for each piece is in here: it finds its variables sooner than those of an object."""
    top = Element("", {})
    above, count = [top], 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > _MOST or len(above) > _DEEPEST:
            raise _too_large(what)
        if attributes and "}" in "".join(attributes):
            short = [key.rpartition("}")[2] for key in attributes]
            attributes = {
                one if short.count(one) == 1 else key: attributes[key] for one, key in zip(short, attributes, strict=True)
            }
        node = Element(tag.rpartition("}")[2] if "}" in tag else tag, attributes)
        above[-1].inside.append(node)
        above.append(node)

    def end(tag: str) -> None:
        above.pop()

    def said(text: str) -> None:
        node = above[-1]
        if node.pieces:
            node.pieces.append(text)
        elif not text.isspace():  # what is blank at the beginning says nothing
            node.pieces = [text]

    def refuse(name: str, *_: object) -> None:
        why = "a document type or an entity can name files of this host, or grow without end"
        raise SpecError(f"{what} is refused: it has the document type {name}", why=why, fix="export it again")

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = said, refuse
    parser.Parse(text, True)
    return top.inside[0]


def _too_large(what: str) -> SpecError:
    why = f"it has more than {_MOST} elements, or more than {_DEEPEST} within each other"
    return SpecError(f"{what} is too large", why=why, fix="export it again")


def children(node: Element | None, path: str) -> Iterator[Element]:
    """All elements at a path; none below nothing."""
    return iter(node.findall(path) if node is not None else ())


def attribute(node: Element | None, path: str, key: str, default: str = "") -> str:
    """An attribute of the element at a path, or of the node itself; the default where there is none."""
    found = node.find(path) if node is not None and path else node
    return found.get(key, default) if found is not None else default


def shown_of(*nodes: Element | None) -> str:
    """What elements say, for a note: nothing of one that is not there."""
    return "; ".join(shown for one in nodes if one is not None and (shown := one.shown()))


def text_of(node: Element | None, path: str = "") -> str:
    """The text of the element at a path, empty where there is none."""
    found = node.find(path) if node is not None and path else node
    return found.text if found is not None else ""

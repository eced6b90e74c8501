"""XML of other tools, read without entities, external references or document types.

Source: the defusedxml documentation, *XML Attacks*.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError  # the types alone; parsing is defusedxml's

from tinamou.errors import SpecError

__all__ = ["Element", "children", "parse", "text_of"]


_MOST, _DEEPEST = 20_000, 64


def parse(text: str, what: str) -> Element:
    """The root, its namespaces left out of all names. Raises SpecError for what is no XML, and for entities in it."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except DefusedXmlException as error:
        why = "a document type or an entity can name files of this host, or grow without end"
        raise SpecError(f"{what} is refused: {error}", why=why, fix="no tool writes one into such a file") from error
    except (ParseError, ValueError, LookupError) as error:
        raise SpecError(f"{what} is not XML", why=str(error), fix="export it again") from error
    _refuse_deep(root, what)
    for node in root.iter():
        node.tag = str(node.tag).rpartition("}")[2]
        for key in [key for key in node.attrib if "}" in key]:
            node.attrib[key.rpartition("}")[2]] = node.attrib.pop(key)
    return root


def _refuse_deep(root: Element, what: str) -> None:
    level, seen = [root], 0
    for _ in range(_DEEPEST):
        seen += len(level)
        level = [child for node in level for child in node]
        if seen > _MOST:
            break
    if level or seen > _MOST:
        why = f"it has more than {_MOST} elements, or more than {_DEEPEST} within each other"
        raise SpecError(f"{what} is too large", why=why, fix="export it again")


def children(node: Element | None, path: str) -> Iterator[Element]:
    """All elements at a path; none below nothing."""
    return iter(node.findall(path) if node is not None else ())


def text_of(node: Element | None, path: str = "") -> str:
    """The text of the element at a path, empty where there is none."""
    found = node.find(path) if node is not None and path else node
    return (found.text or "").strip() if found is not None else ""

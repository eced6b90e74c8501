"""Keys by the names of QEMU's QKeyCode, and the keys that write a text on a keyboard of the United States."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable

from tinamou.errors import Problem, SpecError

__all__ = ["chord", "chords_of"]

_SIGNS = {
    " ": "spc",
    "\n": "ret",
    "\t": "tab",
    "\x1b": "esc",
    "\x08": "backspace",
    "-": "minus",
    "=": "equal",
    "[": "bracket_left",
    "]": "bracket_right",
    ";": "semicolon",
    "'": "apostrophe",
    "`": "grave_accent",
    "\\": "backslash",
    ",": "comma",
    ".": "dot",
    "/": "slash",
    **dict(zip(string.ascii_lowercase + string.digits, string.ascii_lowercase + string.digits, strict=True)),
}
_SHIFTED = dict(zip('~!@#$%^&*()_+{}|:"<>?', "`1234567890-=[]\\;',./", strict=True))

_NAMES = """
    shift shift_r alt alt_r ctrl ctrl_r menu esc minus equal backspace tab bracket_left bracket_right ret semicolon
    apostrophe grave_accent backslash comma dot slash asterisk spc caps_lock num_lock scroll_lock kp_divide
    kp_multiply kp_subtract kp_add kp_enter kp_decimal sysrq kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 less
    print home pgup pgdn end left up down right insert delete stop again props undo front copy open paste find cut
    lf help meta_l meta_r compose pause ro hiragana henkan yen muhenkan katakanahiragana kp_comma kp_equals power
    sleep wake audionext audioprev audiostop audioplay audiomute volumeup volumedown mediaselect mail calculator
    computer ac_home ac_back ac_forward ac_refresh ac_bookmarks f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12
"""
_NAMED = frozenset(_NAMES.split())
_ALIASES = {
    "control": "ctrl",
    "del": "delete",
    "ins": "insert",
    "escape": "esc",
    "enter": "ret",
    "return": "ret",
    "space": "spc",
    "win": "meta_l",
    "super": "meta_l",
    "meta": "meta_l",
    "altgr": "alt_r",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "bs": "backspace",
}

Chord = tuple[str, ...]


def chords_of(text: str) -> list[Chord]:
    """The keys of each character, in the order they go down. Raises SpecError naming each character no key writes."""
    unknown = [sign for sign in dict.fromkeys(text) if not _keys_of(sign)]
    if unknown:
        reason = "no key of the keymap us writes it"
        problems = [Problem("text", sign, f"{_name(sign)}: {reason}") for sign in unknown]
        raise SpecError("the text cannot be typed", problems=problems, fix="leave them out, or have the guest make them")
    return [_keys_of(sign) for sign in text]


def _keys_of(sign: str) -> Chord:
    if sign in string.ascii_uppercase:
        return ("shift", sign.lower())
    if sign in _SHIFTED:
        return ("shift", _SIGNS[_SHIFTED[sign]])
    return (_SIGNS[sign],) if sign in _SIGNS else ()


def _name(sign: str) -> str:
    return f"U+{ord(sign):04X} {unicodedata.name(sign, 'a control character')}"


def chord(text: str) -> Chord:
    """``ctrl-alt-del`` → keys held together, by QEMU's names. Raises SpecError naming each word that is no key."""
    words = [text] if text in _SIGNS else text.split("-")
    found = [_key(word) for word in words]
    problems = [
        Problem("keys", word, "is no key's name", "as ctrl-alt-del, f1, esc, ret, up, a: docs/guides/reach-the-guest.md")
        for word, key in zip(words, found, strict=True)
        if not key
    ]
    if problems:
        raise SpecError("these keys are not known", problems=problems)
    return tuple(dict.fromkeys(key for one in found for key in one))


def _key(word: str) -> Iterable[str]:
    lower = word.lower()
    name = _ALIASES.get(lower, lower)
    return (name,) if name in _NAMED else _keys_of(word) if len(word) == 1 else ()

"""OpenPGP signatures of vendors, checked by gpgv against keyrings; a wrong one is always an error."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images.catalog import SigningKey
from tinamou.late import dataclass
from tinamou.system.exec import CommandError, find_tool
from tinamou.system.shut_in import ask, handed

__all__ = ["Signature", "checkable", "keyrings", "signed_text", "verify_detached", "verify_inline"]

_SECONDS = 600
_LARGEST = 8 << 20
_BEGIN, _END = "-----BEGIN PGP SIGNED MESSAGE-----\n", "\n-----BEGIN PGP SIGNATURE-----"
_ARMOUR = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
_REFUSED = {
    "BADSIG": "the signature does not belong to these bytes",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired; a newer keyring may have it prolonged",
    "REVKEYSIG": "the key was revoked by its owner",
    "ERRSIG": "it was made by a key that is not in the keyring, or in a way gpgv does not know",
    "UNEXPECTED": "the file holds more than one signed text",
    "NODATA": "there is no signature in the file",
}


@dataclass(frozen=True)
class Signature:
    """A good signature: full fingerprint of the primary key, the name on the key as gpgv shows it."""

    fingerprint: str
    signer: str


def keyrings(key: SigningKey, given: Iterable[Path] = ()) -> list[Path]:
    """The files that hold ``key``: those given, those of the user and the administrator, those the catalogue names.

    Own keyrings are ``keyrings/NAME.gpg`` or ``.asc`` below ``$XDG_CONFIG_HOME/tinamou`` and /etc/tinamou.
    """
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folders = (config / "tinamou" / "keyrings", Path("/etc/tinamou/keyrings"))
    own = [folder / f"{key.name}{suffix}" for folder in folders for suffix in (".gpg", ".asc")]
    return [path for path in (*given, *own, *map(Path, key.keyrings)) if path.is_file()]


def checkable(key: SigningKey | None, given: Iterable[Path] = ()) -> str:
    """Why a signature by ``key`` cannot be checked on this host; empty when it can."""
    if key is None:
        return "the vendor publishes no signature for it"
    if not find_tool("gpgv"):
        return "gpgv is not installed (apt-get install gpgv)"
    if not keyrings(key, given):
        brings = f"; the package {key.package} brings it" if key.package else ""
        return f"the key of {key.owner} is not on this host{brings}; or save it as ~/.config/tinamou/keyrings/{key.name}.asc"
    return ""


def verify_detached(data: Path, signature: bytes, key: SigningKey, given: Iterable[Path] = ()) -> Signature:
    """Check a detached signature over a file. Raises ImageError when it is wrong in any way."""
    with handed(signature) as proof:
        file = data.absolute()
        return _gpgv([f"/proc/self/fd/{proof}", str(file)], key, given, data.name, pass_fds=[proof], reads=[file])


def verify_inline(document: bytes, key: SigningKey, given: Iterable[Path] = ()) -> tuple[str, Signature]:
    """Check a clear-signed document; returns only the text that is signed, whatever stands around it. Raises ImageError."""
    with handed(document) as file, handed(b"") as text:
        words = ["--output", f"/proc/self/fd/{text}", f"/proc/self/fd/{file}"]
        signature = _gpgv(words, key, given, "the checksum file", pass_fds=[file, text])
        return os.pread(text, _LARGEST, 0).decode("utf-8", errors="replace"), signature


def signed_text(document: bytes) -> str:
    """The text inside a clear-signed document, unchecked; the whole document when it is not one."""
    text = document.decode(errors="replace").replace("\r\n", "\n")
    _, begun, rest = text.partition(_BEGIN)
    _, blank, body = f"\n{rest}".partition("\n\n")
    signed, ended, _ = body.partition(_END)
    return re.sub(r"^- ", "", signed, flags=re.MULTILINE) if begun and blank and ended else text


def _gpgv(
    words: Sequence[str],
    key: SigningKey,
    given: Iterable[Path],
    what: str,
    *,
    pass_fds: Sequence[int],
    reads: Sequence[Path] = (),
) -> Signature:
    """Good when the vendor's key made a valid signature and none is bad; a further one by an unknown key does not matter."""
    with contextlib.ExitStack() as stack:
        rings = [stack.enter_context(handed(_plain(ring))) for ring in keyrings(key, given)]
        named = [word for ring in rings for word in ("--keyring", f"/proc/self/fd/{ring}")]
        argv = ["gpgv", "--homedir", "/nonexistent", "--status-fd", "1", *named, *words]
        try:
            status = ask(
                argv,
                reads=reads,
                seconds=_SECONDS,
                cpu_seconds=_SECONDS,
                pass_fds=[*rings, *pass_fds],
                file_bytes=_LARGEST,
            )
            refusal = ""
        except CommandError as error:
            status, refusal = error.stdout, error.stderr.strip()
        except TimeoutError as error:
            raise ImageError(f"the signature of {what} cannot be checked", why=str(error), fix="try again") from error
    return _judged(status, refusal, key, what)


def _judged(status: str, refusal: str, key: SigningKey, what: str) -> Signature:
    lines = [line.split() for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    said = {line[1] for line in lines if len(line) > 1}
    valid = [line for line in lines if len(line) > 2 and line[1] == "VALIDSIG"]
    good = [line for line in valid if line[-1].upper() in key.fingerprints]
    other_signer = "ERRSIG" in said
    if not good or (refusal and not other_signer) or said & (_REFUSED.keys() - {"ERRSIG"}):
        raise _wrong(what, key, said, [line[-1] for line in valid], refusal)
    names = [" ".join(line[3:]) for line in lines if len(line) > 3 and line[1] == "GOODSIG"]
    return Signature(good[0][-1].upper(), names[0] if names else key.owner)


def _wrong(what: str, key: SigningKey, said: set[str], others: list[str], refusal: str) -> ImageError:
    reasons = [text for word, text in _REFUSED.items() if word in said]
    if not reasons and others:
        reasons = [f"it was made by {', '.join(others)}, not by {key.owner}"]
    return ImageError(
        f"the signature of {what} is wrong",
        why="; ".join(reasons) or "gpgv refuses it",
        fix="do not use this image; try again later, and tell the vendor if it stays so",
        evidence={"gpgv": refusal},
    )


def _plain(ring: Path) -> bytes:
    """A keyring as gpgv takes it: binary packets. Armour (RFC 9580, section 6) is taken off. Raises ImageError."""
    data = ring.read_bytes()
    blocks = _ARMOUR.findall(data)
    if not blocks:
        return data
    try:
        return b"".join(map(_unarmoured, blocks))
    except binascii.Error as error:
        raise ImageError(f"the keyring {ring} is damaged", why=str(error), fix="get it again from the vendor") from error


def _unarmoured(block: bytes) -> bytes:
    lines = [line.strip() for line in block.splitlines()]
    body = lines[lines.index(b"") + 1 :] if b"" in lines[:-1] else lines
    return base64.b64decode(b"".join(line for line in body if not line.startswith(b"=")), validate=True)

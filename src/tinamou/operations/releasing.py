"""A secret into a running machine's guest: after a yes about its TPM's quote, and so that only that TPM can open it.

The secret goes in pieces of 32 bytes, each as a credential (MakeCredential) that the TPM gives out only where it holds the
endorsement key and the key that signed the quote; it is opened by a command in the guest, and written there. What the host's
agent carries is encrypted. Source: TCG TPM 2.0 Library, part 1, section 24, part 3 (ActivateCredential).
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from tinamou.attest import Known, Verdict, tpm, tpm_wire, verify
from tinamou.errors import GuestError, SpecError
from tinamou.images.progress import Progress, silent
from tinamou.late import replace
from tinamou.operations.attesting import TpmGuest, quote_of

__all__ = ["MOST", "credentials", "release"]

MOST = 1024
"""Bytes of a secret: a key, which may open as much as you like."""
_PIECE = 32
_OPEN = r"""
umask 077
part=$1.tinamou-$2
answer=$(mktemp) || exit 9
trap 'rm -f "$answer"' EXIT
exec 3<>/dev/tpm0 || exit 9
dd bs=4096 count=1 iflag=fullblock 2>/dev/null >&3 && dd bs=4096 count=1 2>/dev/null <&3 >"$answer" || exit 9
code=$(dd if="$answer" bs=1 skip=6 count=4 2>/dev/null | tr -d '\0' | wc -c)
[ "$code" -eq 0 ] || { echo 'its TPM refused it' >&2; exit 9; }
dd if="$answer" bs=1 skip=16 count="$3" 2>/dev/null >>"$part" || exit 9
[ "$4" != last ] || mv -f "$part" "$1"
"""
"""One answer of the TPM: what it says behind its head goes to the file's end, which gets its name with the last."""
_CLEAN = 'rm -f "$1.tinamou-$2"'


def credentials(quote: tpm.TpmQuote, secret: bytes) -> list[tuple[bytes, bytes]]:
    """The secret in pieces that only the TPM of a quote opens (tpm2_activatecredential): blob and its key, each.

    Raises SpecError where it is too long, MalformedError.
    """
    if not 0 < len(secret) <= MOST:
        raise SpecError("the secret is not released", why=f"it has {len(secret)} bytes, and 1 to {MOST} go into a TPM")
    pieces = (secret[at : at + _PIECE] for at in range(0, len(secret), _PIECE))
    return [tpm.credential(quote.endorsement, tpm.name_of(quote.key), piece) for piece in pieces]


async def release(name: str, secret: bytes, to: str, known: Known, *, progress: Progress = silent) -> tuple[Verdict, str]:
    """The verdict about a new quote of a machine's TPM; where all of it is yes, the secret is in the guest's file ``to``.

    And SHA-256 of it, empty where it was not released. Raises SpecError, StateError, GuestError.
    """
    nonce = os.urandom(32)
    quoted = await quote_of(name, nonce, progress=progress)
    verdict = verify(quoted.quote.written(), replace(known, nonce=nonce))
    if not verdict.proven:
        return verdict, ""
    pieces = credentials(quoted.quote, secret)
    guest, mark = TpmGuest(name, progress), os.urandom(4).hex()
    try:
        endorsement, key = await guest.made(tpm_wire.EK_TEMPLATE), await guest.made(tpm_wire.KEY_TEMPLATE)
        for number, (blob, seed) in enumerate(pieces):
            session = await guest.session()
            command = tpm_wire.activate_credential(key.handle, endorsement.handle, session, blob, seed)
            size = min(_PIECE, len(secret) - number * _PIECE)
            last = "last" if number == len(pieces) - 1 else "more"
            await guest.run(_OPEN, command, 4096, to, mark, str(size), last)
            guest.held.remove(session)  # it ends with the command
    except BaseException:
        await _quietly(guest, to, mark)
        raise
    finally:
        await guest.forget()
    return verdict, hashlib.sha256(secret).hexdigest()


async def _quietly(guest: TpmGuest, to: str, mark: str) -> None:
    with contextlib.suppress(GuestError):
        await guest.run(_CLEAN, b"", 4096, to, mark)

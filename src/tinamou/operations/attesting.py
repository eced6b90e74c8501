"""A quote of a running machine's TPM: asked for through its guest, and which TPM it is of proven by a challenge."""

from __future__ import annotations

import hmac
import os

from tinamou.attest import tpm, tpm_wire
from tinamou.attest.binary import MalformedError, Reader
from tinamou.attest.certificates import load, named
from tinamou.errors import GuestError, SpecError
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.operations.inside import Inside
from tinamou.system.paths import state_dir

__all__ = ["Quoted", "TpmGuest", "quote_of"]

_CERTIFICATE = 0x01C00002
"""Where a TPM keeps the certificate of its RSA endorsement key (EK Credential Profile)."""
_LONGEST = 8192
_LOG = 16 << 20
_LOGS = ("tpm0/binary_bios_measurements", "ima/binary_runtime_measurements")
_TELL = (
    "[ -c /dev/tpm0 ] || { echo 'it has no /dev/tpm0' >&2; exit 9; }; exec 3<>/dev/tpm0 || exit 9; "
    "dd bs=4096 count=1 iflag=fullblock 2>/dev/null >&3 && exec dd bs=4096 count=1 2>/dev/null <&3"
)
"""One command from the input, its answer to the output."""
_READ = (
    "[ -d /sys/kernel/security/tpm0 ] || "
    "mount -t securityfs securityfs /sys/kernel/security 2>/dev/null; f=/sys/kernel/security/"
)


@dataclass(frozen=True)
class Quoted:
    """A quote, the name of the key that signed it, and who certified the TPM it is in, empty for nobody.

    ``made_for`` is the machine that TPM was made for, by its certificate: this one, that of which it is a fork, or
    ``unknown`` for one of an earlier version. Any other means that the guest has let another machine's TPM answer.
    """

    quote: tpm.TpmQuote
    key: bytes
    certified: str
    made_for: str


async def quote_of(name: str, nonce: bytes, *, progress: Progress = silent) -> Quoted:
    """A quote with a nonce of up to 32 bytes. Raises SpecError, StateError, GuestError.

    The TPM has shown by a challenge that key and endorsement key are both in it.
    """
    if not 1 <= len(nonce) <= 32:
        raise SpecError("no quote", why=f"a TPM's quote has room for a nonce of 32 bytes, not {len(nonce)}")
    guest = TpmGuest(name, progress)
    try:
        endorsement = await guest.made(tpm_wire.EK_TEMPLATE)
        key = await guest.made(tpm_wire.KEY_TEMPLATE)
        await _challenge(guest, endorsement, key)
        reader = await guest.ask(tpm_wire.quote(key.handle, nonce, tpm.REGISTERS))
        reader.take(4, "length")
        attest = tpm_wire.unsized(reader, "what is attested")
        signature = reader.take(reader.left - 5, "signature")
        certificate = await _certificate(guest)
    except MalformedError as error:
        raise GuestError(f"the TPM of {name} gives no quote", why=str(error)) from None
    finally:
        await guest.forget()
    log, ima = [await guest.run(f"{_READ}{path}; [ -r $f ] && exec cat $f || exit 0", b"", _LOG) for path in _LOGS]
    quote = tpm.TpmQuote(attest, signature, key.public, endorsement.public, certificate, log, ima)
    try:
        quote = tpm.as_quoted(quote)
    except MalformedError:
        pass  # a log that cannot be read is judged, not hidden
    made_for, issuer = _certified(certificate, endorsement.public)
    return Quoted(quote, tpm.name_of(key.public), issuer, made_for)


async def _challenge(guest: TpmGuest, endorsement: tpm_wire.Made, key: tpm_wire.Made) -> None:
    """The TPM that holds the endorsement key holds the other, too. Raises GuestError, MalformedError."""
    secret = os.urandom(32)
    blob, seed = tpm.credential(endorsement.public, tpm.name_of(key.public), secret)
    try:
        reader = await guest.activated(key, endorsement, blob, seed)
    except tpm_wire.RefusedError as error:
        if error.code != tpm_wire.LOCKED_OUT:
            raise
        await guest.ask(tpm_wire.lock_reset())
        reader = await guest.activated(key, endorsement, blob, seed)
    reader.take(4, "length")
    if not hmac.compare_digest(tpm_wire.unsized(reader, "the secret"), secret):
        raise GuestError("the TPM failed the challenge", why="the key that signs is not in the TPM of the endorsement key")


async def _certificate(guest: TpmGuest) -> bytes:
    """The certificate the TPM keeps of its endorsement key; empty where it has none."""
    try:
        reader = await guest.ask(tpm_wire.nv_size(_CERTIFICATE))
    except MalformedError:
        return b""
    length = int.from_bytes(tpm_wire.unsized(reader, "index")[-2:], "big")
    found = b""
    if length > _LONGEST:
        raise MalformedError(f"the TPM claims a certificate of {length} bytes")
    while len(found) < length:
        reader = await guest.ask(tpm_wire.nv_read(_CERTIFICATE, min(512, length - len(found)), len(found)))
        reader.take(4, "length")
        piece = tpm_wire.unsized(reader, "certificate")
        if not 0 < len(piece) <= length - len(found):
            raise MalformedError(
                f"the TPM has {length} bytes of a certificate, and gives {len(piece)} of {length - len(found)}"
            )
        found += piece
    return found


def _certified(certificate: bytes, endorsement: bytes) -> tuple[str, str]:
    """The machine this host's authority certified the endorsement key for, and its name; empty where it did not."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        (issuer,) = load((state_dir() / "tpm-ca/issuercert.pem").read_bytes())
        found = load(certificate)[0] if certificate else None
        key = found.public_key() if found else None
        if found is None or not isinstance(key, RSAPublicKey) or key.public_numbers().n != tpm.rsa_key(endorsement):
            return "", ""
        found.verify_directly_issued_by(issuer)
    except (OSError, ValueError, TypeError, MalformedError, InvalidSignature):
        return "", ""
    return named(found), f"{named(issuer)} of this host"


class TpmGuest(Inside):
    """The guest's way to its TPM: each command in a process of its own, which has the device open for it."""

    def __init__(self, name: str, progress: Progress) -> None:
        super().__init__(name, "the TPM", "start it with tpm = true; its guest needs a driver for it", progress)
        self.held: list[int] = []

    async def ask(self, command: bytes) -> Reader:
        """A command's answer, behind its head. Raises GuestError, MalformedError."""
        return tpm_wire.answered(await self.run(_TELL, command, 4096), command)

    async def made(self, template: bytes) -> tpm_wire.Made:
        """A key that is there until `forget`."""
        command = tpm_wire.create_primary(template)
        found = tpm_wire.made(await self.run(_TELL, command, 4096), command)
        self.held.append(found.handle)
        return found

    async def activated(self, key: tpm_wire.Made, endorsement: tpm_wire.Made, blob: bytes, seed: bytes) -> Reader:
        """What the TPM makes of a credential, behind its answer's head. Raises GuestError, MalformedError."""
        session = await self.session()
        found = await self.ask(tpm_wire.activate_credential(key.handle, endorsement.handle, session, blob, seed))
        self.held.remove(session)
        return found

    async def session(self) -> int:
        """A session in which the policy of the endorsement key is fulfilled. It ends with its use, or by `forget`."""
        found = int.from_bytes((await self.ask(tpm_wire.policy_session(os.urandom(16)))).take(4, "session"), "big")
        self.held.append(found)
        await self.ask(tpm_wire.endorsement_policy(found))
        return found

    async def forget(self) -> None:
        """The TPM has room for few keys."""
        for handle in self.held:
            await self.run(_TELL, tpm_wire.flush(handle), 4096)
        self.held.clear()

"""Certificates of makers of processors: chains up to roots known here, and lists of what was revoked.

Nothing is fetched and nothing is taken from the host: whoever asks brings the certificates, and a root counts by the hash
of its public key alone (SHA-256 of SubjectPublicKeyInfo, RFC 5280). Sources: AMD 57230 (VCEK certificate and KDS),
Intel's PCK certificate and CRL profile; the hashes were taken from the roots that AMD and Intel publish.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tinamou.attest.binary import MalformedError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList

__all__ = ["ROOTS", "UntrustedError", "canonical_pem", "check_chain", "load", "load_lists", "named", "pin", "root_of"]

ROOTS = {
    "3a04f8f1347de206c9206a81148ba4ef0a233b245d43a15dd82de043bb3e4f69": "AMD's root for Naples (EPYC 7001), of SEV",
    "7447ffa21e2b938bfade89f5e9066c00a328813bfc43685605cceabd18da6fde": "AMD's root for Rome (EPYC 7002), of SEV",
    "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "AMD's root for Milan (EPYC 7003)",
    "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "AMD's root for Genoa (EPYC 9004)",
    "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "AMD's root for Turin (EPYC 9005)",
    "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e": "Intel's root for SGX and TDX",
}
"""SHA-256 of a root's public key, and whose it is."""

_MOST = 1 << 20
"""Bytes of certificates that are looked at."""
_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----.*?-----END \1-----\r?\n?", re.DOTALL)


class UntrustedError(Exception):
    """A chain does not lead where it must; the message says where it breaks."""


def load(data: bytes) -> list[Certificate]:
    """Every certificate in PEM text, or the one in DER. Raises MalformedError."""
    from cryptography import x509

    blocks = [match[0] for match in _PEM.finditer(_bounded(data)) if match[1] == b"CERTIFICATE"]
    with _quiet():
        try:
            found = [x509.load_pem_x509_certificate(block) for block in blocks] or [x509.load_der_x509_certificate(data)]
            for one in found:  # the library looks at each of these when it is asked for
                _ = (
                    one.issuer,
                    one.subject,
                    one.extensions,
                    one.public_key(),
                    one.not_valid_before_utc,
                    one.not_valid_after_utc,
                )
                _whole(one)
            return found
        except Exception as error:  # its parser has errors of its own for every step
            raise MalformedError(f"no certificate: {error}") from error


def load_lists(data: bytes) -> list[CertificateRevocationList]:
    """Every list of revoked certificates in PEM text, or the one in DER. Raises MalformedError."""
    from cryptography import x509

    blocks = [match[0] for match in _PEM.finditer(_bounded(data)) if match[1] == b"X509 CRL"]
    with _quiet():
        try:
            found = [x509.load_pem_x509_crl(block) for block in blocks] or [x509.load_der_x509_crl(data)]
            for one in found:  # likewise
                _ = (one.issuer, one.last_update_utc, one.next_update_utc, one.extensions, one.signature_algorithm_oid)
                _ = [(each.serial_number, each.revocation_date_utc, each.extensions) for each in one]
                _whole(one)
            return found
        except Exception as error:
            raise MalformedError(f"no list of revoked certificates: {error}") from error


def _whole(signed: Certificate | CertificateRevocationList) -> None:
    """Raises ValueError for a signature that is not whole bytes: nothing signs how many of its bits count."""
    from cryptography.hazmat.primitives.serialization import Encoding

    if not signed.public_bytes(Encoding.DER).endswith(b"\0" + signed.signature):
        raise ValueError("its signature is no whole number of bytes")


def _bounded(data: bytes) -> bytes:
    if len(data) > _MOST:
        raise MalformedError(f"{len(data)} bytes of certificates; {_MOST} are looked at")
    return data


def canonical_pem(chain: Sequence[Certificate], text: bytes) -> bool:
    """Whether the text is these certificates as PEM and nothing else, so that no byte of it may differ."""
    from cryptography.hazmat.primitives.serialization import Encoding

    plain = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
    return text.rstrip(b"\0").replace(b"\r\n", b"\n").rstrip(b"\n") == plain.rstrip(b"\n")


def named(certificate: Certificate) -> str:
    """What a certificate calls its holder."""
    from cryptography.x509.oid import NameOID

    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()


def pin(certificate: Certificate) -> str:
    """SHA-256 of its public key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def root_of(certificates: Iterable[Certificate]) -> Certificate | None:
    """The root known here among these."""
    return next((one for one in certificates if pin(one) in ROOTS), None)


def check_chain(
    chain: Sequence[Certificate], lists: Sequence[CertificateRevocationList], at: datetime, *, listed: bool = True
) -> tuple[list[str], bool]:
    """What was seen of a chain from a leaf to a root: signatures, terms, what is revoked. Raises UntrustedError.

    And whether for each certificate a list of its issuer's that holds now was there to look at; ``listed`` says whether the
    leaf's issuer keeps one at all.
    """
    from cryptography.x509 import BasicConstraints, ExtensionNotFound

    if not chain or pin(chain[-1]) not in ROOTS:
        last = f"{named(chain[-1])} (SHA-256 of its key {pin(chain[-1])})" if chain else "nothing"
        raise UntrustedError(f"the chain ends at {last}, which is no root known here")
    seen, complete = [f"{named(chain[-1])} is {ROOTS[pin(chain[-1])]}"], True
    with _quiet():
        for holder, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
            try:
                holder.verify_directly_issued_by(issuer)
            except Exception as error:
                raise UntrustedError(f"{named(holder)} was not signed by {named(issuer)}") from error
            if not holder.not_valid_before_utc <= at <= holder.not_valid_after_utc:
                term = f"{holder.not_valid_before_utc:%Y-%m-%d} to {holder.not_valid_after_utc:%Y-%m-%d}"
                raise UntrustedError(f"{named(holder)} holds from {term}, not at {at:%Y-%m-%d}")
            if holder is not chain[0]:
                try:
                    able = holder.extensions.get_extension_for_class(BasicConstraints).value.ca
                except (ExtensionNotFound, ValueError):
                    able = False
                if not able:
                    raise UntrustedError(f"{named(holder)} may not sign certificates")
            if holder is issuer:
                continue
            current = _standing(holder, issuer, lists, at)
            needed = listed or holder is not chain[0]
            complete = complete and (bool(current) or not needed)
            said = current or ("with no list of revoked ones that holds now" if needed else "who lists no revoked ones")
            seen.append(f"{named(holder)} was signed by {named(issuer)}, {said}")
    return seen, complete


def _standing(holder: Certificate, issuer: Certificate, lists: Sequence[CertificateRevocationList], at: datetime) -> str:
    """That a certificate was not revoked, by the lists of its issuer; empty where none holds now. Raises UntrustedError."""
    mine = [one for one in lists if one.issuer == issuer.subject and _signed(one, issuer)]
    for one in mine:
        if one.get_revoked_certificate_by_serial_number(holder.serial_number):
            raise UntrustedError(f"{named(holder)} was revoked by {named(issuer)}")
    current = [one.last_update_utc for one in mine if one.last_update_utc <= at <= (one.next_update_utc or at)]
    return f"and not revoked by its list of {max(current):%Y-%m-%d}" if current else ""


def _signed(listed: CertificateRevocationList, issuer: Certificate) -> bool:
    try:
        return listed.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except Exception:  # of a signature whose form is none it says so by errors of its parser's
        return False


def _quiet() -> warnings.catch_warnings[None]:
    """AMD numbers certificates with 0, which the library warns it will refuse one day."""
    caught: warnings.catch_warnings[None] = warnings.catch_warnings(action="ignore")
    return caught

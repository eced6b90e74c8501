"""Quotes of Intel's TDX: what they say, and what is to be believed of it.

Source: Intel TDX DCAP Quoting Library API (quote formats 4 and 5), Intel TDX Module ABI (TDREPORT, ATTRIBUTES). What Intel
says of a host's level, its collateral, is judged by the library dcap-qvl.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tinamou.attest.answers import Answer, Verdict, no, not_judged, yes
from tinamou.attest.binary import MalformedError, Reader, number
from tinamou.attest.certificates import UntrustedError, canonical_pem, check_chain, load, load_lists, named
from tinamou.attest.policy import Policy
from tinamou.attest.signed import signed
from tinamou.late import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import Certificate, CertificateRevocationList

__all__ = ["NO_LEVEL", "TdxQuote", "check_issuers", "is_one", "judge", "parse"]

_TDX = 0x81
_INTEL_QE = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_BODIES = {2: 584, 3: 648}
"""Bytes of a body by its type, in quotes of version 5: of TDX 1.0, and 1.5."""
_MOST = 1 << 16
_FIELDS = {
    "mrseam": (16, 48), "mrtd": (136, 48), "mrconfigid": (184, 48), "mrowner": (232, 48), "mrownerconfig": (280, 48),
    "rtmr0": (328, 48), "rtmr1": (376, 48), "rtmr2": (424, 48), "rtmr3": (472, 48),
}  # fmt: skip
_ATTRIBUTES = {
    0: "debugging",
    28: "no #VE for pages that are gone",
    29: "may be migrated",
    30: "supervisor keys",
    31: "key locker",
    63: "performance counters",
}
NO_LEVEL = "Verification failed: No matching TCB level found"
"""dcap-qvl's last word, after every signature, list and identity was judged; others quote what they have not judged yet."""
_TUD = 0xFF
"""Attributes by which the host reaches into the guest: it is a guest under debugging with any of them."""


@dataclass(frozen=True)
class TdxQuote:
    """What a quote says, and the pieces that prove it."""

    raw: bytes
    version: int
    signed: bytes
    attributes: int
    measured: dict[str, bytes]
    report_data: bytes
    signature: bytes
    key: bytes
    enclave_report: bytes
    enclave_signature: bytes
    enclave_data: bytes
    pem: bytes
    behind: int


def is_one(data: bytes) -> bool:
    """Whether these bytes have the form of such a quote."""
    return len(data) > 700 and number(data[:2]) in (4, 5) and number(data[4:8]) == _TDX


def parse(data: bytes) -> TdxQuote:
    """Raises MalformedError."""
    if len(data) > _MOST:
        raise MalformedError(f"{len(data)} bytes; a quote has fewer than {_MOST}")
    reader = Reader(data, "the quote")
    header = reader.take(48, "header")
    version, kind, tee = number(header[:2]), number(header[2:4]), number(header[4:8])
    if version not in (4, 5) or kind != 2 or tee != _TDX or header[12:28] != _INTEL_QE:
        raise MalformedError(
            f"version {version}, key {kind}, TEE {tee:#x}: not a quote of TDX signed by ECDSA P-256 of Intel's"
        )
    described = b""
    length = _BODIES[2]
    if version == 5:
        described = reader.take(6, "type of the body")
        known = _BODIES.get(number(described[:2]))
        if known is None or known != number(described[2:]):
            raise MalformedError(
                f"a body of type {number(described[:2])} with {number(described[2:])} bytes is not known here"
            )
        length = known
    body = reader.take(length, "body")
    proof = Reader(reader.take(reader.number(4, "length of the signature"), "signature"), "the signature of the quote")
    signature, key = proof.take(64, "signature"), proof.take(64, "key")
    inner = Reader(_certified(proof, 6), "the enclave's part")
    proof.ended()
    report, report_signature = inner.take(384, "report"), inner.take(64, "signature of the report")
    enclave_data = inner.take(inner.number(2, "length of its data"), "its data")
    pem = _certified(inner, 5)
    inner.ended()
    return TdxQuote(
        raw=data,
        version=version,
        signed=header + described + body,
        attributes=number(body[120:128]),
        measured={name: body[at : at + size] for name, (at, size) in _FIELDS.items()},
        report_data=body[520:584],
        signature=signature,
        key=key,
        enclave_report=report,
        enclave_signature=report_signature,
        enclave_data=enclave_data,
        pem=pem,
        behind=reader.left,
    )


def _certified(reader: Reader, wanted: int) -> bytes:
    kind = reader.number(2, "kind of what certifies it")
    if kind != wanted:
        raise MalformedError(f"what certifies it is of kind {kind}, not {wanted}")
    return reader.take(reader.number(4, "length of what certifies it"), "what certifies it")


def judge(
    quote: TdxQuote,
    lists: Sequence[CertificateRevocationList],
    collateral: str,
    at: datetime,
    policy: Policy,
    fresh: Callable[[bytes], Answer],
    expected: Callable[[dict[str, bytes]], Answer],
) -> Verdict:
    """The five answers about a quote; ``collateral`` is Intel's word on the host as JSON, empty where there is none."""
    says = {name: value.hex() for name, value in quote.measured.items()}
    words = [word for bit, word in _ATTRIBUTES.items() if quote.attributes >> bit & 1]
    says |= {"version": str(quote.version), "report data": quote.report_data.hex()}
    says |= {"behind it": f"{quote.behind} bytes, which count for nothing"} if quote.behind else {}
    says["attributes"] = f"{quote.attributes:#x} ({', '.join(words) or 'none'})"
    try:
        chain = load(quote.pem)
        if not canonical_pem(chain, quote.pem):
            raise UntrustedError("the certificates in it are written in an unusual way")
        seen = [*check_chain(chain, lists, at)[0], *_signatures(quote, chain[0])]
        genuine, tcb = _with_collateral(quote, collateral, at, policy, seen)
    except (UntrustedError, MalformedError) as error:
        genuine = no("genuine", str(error), "ask the guest for another quote")
        tcb = no("tcb", "the quote is not genuine, and so is what it says of the host")
    answers = (genuine, fresh(quote.report_data), expected(quote.measured), _policy(quote, policy), tcb)
    return Verdict("tdx", says, answers)


def _signatures(quote: TdxQuote, leaf: Certificate) -> list[str]:
    """From the processor's certificate to the quote. Raises UntrustedError."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

    processor = leaf.public_key()
    if not isinstance(processor, EllipticCurvePublicKey):
        raise UntrustedError(f"{named(leaf)} has no key of an elliptic curve")
    _check(
        processor,
        quote.enclave_signature,
        quote.enclave_report,
        f"the quoting enclave's report was not signed by {named(leaf)}",
    )
    bound = quote.enclave_report[320:384]
    if bound != hashlib.sha256(quote.key + quote.enclave_data).digest() + bytes(32):
        raise UntrustedError("the quoting enclave's report speaks of another key than the quote has")
    try:
        key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x04" + quote.key)
    except ValueError as error:
        raise UntrustedError("its key is no point of the curve P-256") from error
    _check(key, quote.signature, quote.signed, "the quote was not signed by its key, or was changed since")
    return [f"{named(leaf)} signed the report of the quoting enclave", "the enclave's key signed the quote"]


def _check(key: EllipticCurvePublicKey, signature: bytes, data: bytes, otherwise: str) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not signed(key, r, s, data, bits=256):
        raise UntrustedError(otherwise)


def _with_collateral(
    quote: TdxQuote, collateral: str, at: datetime, policy: Policy, seen: list[str]
) -> tuple[Answer, Answer]:
    """Whether it is genuine, and whether the host's level is enough, by what Intel says of it."""
    if not collateral:
        fix = "give Intel's collateral for this quote (dcap-qvl writes it as JSON) by --collateral"
        why = "Intel's collateral was not given"
        missing = not_judged("genuine", f"nobody said whether a certificate on the way was revoked: {why}", fix, seen)
        return missing, not_judged("tcb", why, fix)
    try:
        import dcap_qvl
    except ImportError:
        fix = "install tinamou[attest]"
        return not_judged("genuine", "dcap-qvl is not installed", fix, seen), not_judged(
            "tcb", "dcap-qvl is not installed", fix
        )
    try:
        check_issuers(collateral, at)
        told = dcap_qvl.QuoteCollateralV3.from_json(collateral)
        report = dcap_qvl.verify(quote.raw, told, int(at.timestamp()))
    except Exception as error:  # a library in Rust: its errors have no common class
        if str(error) == NO_LEVEL:
            said = [*seen, "Intel's collateral holds for it"]
            return yes("genuine", said), no("tcb", f"Intel knows no such level of a host: {error}", "update the host")
        if quote.attributes & _TUD and policy.debug:
            why = f"dcap-qvl judges no guest under debugging: {error}"
            fix = "trust it as far as its signatures go, or start it without debugging"
            return not_judged("genuine", why, fix, seen), not_judged("tcb", why, fix)
        why = f"by Intel's collateral: {error}"
        fix = "get the collateral anew, or give the time it was got at by --at"
        return no("genuine", why, fix, seen), no("tcb", why, fix)
    accepted = [one for one in report.advisory_ids if one not in policy.advisories]
    said = [f"Intel says {report.status}", *(f"open: {one}" for one in report.advisory_ids)]
    seen = [*seen, "Intel's collateral, signed by it, revokes none of them"]
    if report.status in policy.statuses and not accepted:
        return yes("genuine", seen), yes("tcb", said)
    open_ones = f", open: {', '.join(accepted)}" if accepted else ""
    fix = "the host's owner updates firmware and microcode; or accept it in the policy (statuses, advisories)"
    return yes("genuine", seen), no("tcb", f"Intel says {report.status} of the host{open_ones}", fix, said)


def check_issuers(collateral: str, at: datetime) -> None:
    """The chains of those who signed the collateral lead to Intel's root, and the list of processors is theirs.

    The library judges that list by the quote's own chain. Raises UntrustedError, MalformedError, ValueError.
    """
    told = json.loads(collateral)
    for name in ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain"):
        text = str(told[name]).encode()
        chain = load(text)
        check_chain(chain, (), at)
        if not canonical_pem(chain, text):
            raise UntrustedError(f"the certificates of {name} are written in an unusual way")
    issuer = load(str(told["pck_crl_issuer_chain"]).encode())[0]
    (processors,) = load_lists(bytes.fromhex(told["pck_crl"]))
    if processors.issuer != issuer.subject or not processors.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]
        raise UntrustedError("the list of revoked processors was not signed by who is said to have")


def _policy(quote: TdxQuote, demanded: Policy) -> Answer:
    wrong = ["a quote of TDX does not say whether Secure Boot was on"] if demanded.secure_boot else []
    if quote.attributes & _TUD and not demanded.debug:
        wrong.append("the host may debug the guest, and so read its memory")
    if quote.attributes >> 29 & 1 and not demanded.migration_agent:
        wrong.append("it may be moved to another host")
    if wrong:
        return no("policy", "; ".join(wrong), "start the guest with other attributes, or demand less of it")
    may = (
        "under debugging" if quote.attributes & _TUD else "no debugging",
        "may be moved elsewhere" if quote.attributes >> 29 & 1 else "not to be moved elsewhere",
    )
    return yes("policy", [f"attributes {quote.attributes:#x}", *may])

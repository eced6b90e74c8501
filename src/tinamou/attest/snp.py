"""Reports of AMD's SEV-SNP: what they say, and what is to be believed of it.

Source: AMD 56860 (SEV Secure Nested Paging Firmware ABI), tables of ATTESTATION_REPORT, GUEST_POLICY, TCB_VERSION and
PLATFORM_INFO; AMD 57230 (VCEK Certificate and KDS Interface).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.attest import idblock
from tinamou.attest.answers import Answer, Verdict, no, not_judged, yes
from tinamou.attest.binary import MalformedError, number
from tinamou.attest.certificates import UntrustedError, check_chain, named, root_of
from tinamou.attest.policy import Policy
from tinamou.attest.signed import signed
from tinamou.late import dataclass

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList

__all__ = ["LENGTH", "SnpReport", "address_of", "is_one", "judge", "parse"]

LENGTH = 1184
_SIGNED = 0x2A0
_AMD = "1.3.6.1.4.1.3704.1."
_KDS = "https://kdsintf.amd.com"
_PARTS = {
    "Turin": ("fmc", "bootloader", "tee", "snp", "", "", "", "microcode"),
    "": ("bootloader", "tee", "", "", "", "", "snp", "microcode"),
}
"""Which byte of a TCB version is which part; Turin has an order of its own."""
_EXTENSIONS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}


@dataclass(frozen=True)
class SnpReport:
    """What a report says, taken from it as it is. Versions are parts' security versions, by name."""

    raw: bytes
    version: int
    guest_svn: int
    policy: int
    vmpl: int
    platform: int
    key: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    chip_id: bytes
    reported_tcb: bytes
    family: tuple[int, int, int] | None

    @property
    def product(self) -> str:
        """The name of the processor's family, as the report has it since its third version; empty where it has none."""
        if self.family is None:
            return ""
        family, model, _ = self.family
        models = {0x19: ((0x0F, "Milan"), (0x1F, "Genoa"), (0xAF, "Genoa")), 0x1A: ((0x11, "Turin"),)}
        return next((name for last, name in models.get(family, ()) if model <= last), "")

    def levels(self, product: str) -> dict[str, int]:
        """The reported level of the host, part by part."""
        parts = _PARTS.get(product, _PARTS[""])
        return {part: value for part, value in zip(parts, self.reported_tcb, strict=True) if part}

    @property
    def masked(self) -> bool:
        """Whether the host keeps the number of the processor to itself."""
        return bool(self.key >> 1 & 1)

    @property
    def by(self) -> str:
        """The kind of key that signed it: VCEK (of the processor), VLEK (of a cloud), or none."""
        return {0: "VCEK", 1: "VLEK"}.get(self.key >> 2 & 7, "")


def is_one(data: bytes) -> bool:
    """Whether these bytes have the form of such a report."""
    return len(data) == LENGTH and 2 <= number(data[:4]) <= 16 and number(data[0x34:0x38]) == 1


def parse(data: bytes) -> SnpReport:
    """Raises MalformedError."""
    if len(data) != LENGTH:
        raise MalformedError(f"a report of SEV-SNP has {LENGTH} bytes, this has {len(data)}")
    version = number(data[:4])
    if not 2 <= version <= 5:
        raise MalformedError(f"a report of version {version}; versions 2 to 5 are known here")
    if number(data[0x34:0x38]) != 1:
        raise MalformedError("it is signed in another way than by ECDSA P-384 with SHA-384")
    return SnpReport(
        raw=data,
        version=version,
        guest_svn=number(data[4:8]),
        policy=number(data[8:16]),
        vmpl=number(data[0x30:0x34]),
        platform=number(data[0x40:0x48]),
        key=number(data[0x48:0x4C]),
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        host_data=data[0xC0:0xE0],
        id_key_digest=data[0xE0:0x110],
        author_key_digest=data[0x110:0x140],
        chip_id=data[0x1A0:0x1E0],
        reported_tcb=data[0x180:0x188],
        family=(data[0x188], data[0x189], data[0x18A]) if version >= 3 else None,
    )


def judge(
    report: SnpReport,
    certificates: Sequence[Certificate],
    lists: Sequence[CertificateRevocationList],
    at: datetime,
    policy: Policy,
    fresh: Callable[[bytes], Answer],
    expected: Callable[[dict[str, bytes]], Answer],
    block: idblock.IdBlock | None = None,
) -> Verdict:
    """The five answers about a report; ``fresh`` judges the data in it, ``expected`` its measurement; and its id block."""
    product = report.product or _product_of(certificates)
    levels = report.levels(product)
    says = {
        "version": str(report.version),
        "measurement": report.measurement.hex(),
        "report data": report.report_data.hex(),
        "guest policy": f"{report.policy:#x} ({', '.join(_policy_words(report.policy)) or 'nothing allowed'})",
        "privilege level": str(report.vmpl),
        "host data": report.host_data.hex(),
        "processor": product or "not said",
        "chip": "kept from the guest" if report.masked else report.chip_id.hex(),
        "level": ", ".join(f"{part} {value}" for part, value in levels.items()),
        "key": report.by or "none",
    }
    genuine = _genuine(report, product, certificates, lists, at)
    measured = _identified(report, block, expected({"measurement": report.measurement}))
    answers = (genuine, fresh(report.report_data), measured, _policy(report, policy), _tcb(levels, policy))
    return Verdict("sev-snp", says, answers)


def _identified(report: SnpReport, block: idblock.IdBlock | None, answer: Answer) -> Answer:
    """The guest is the one of that block: what its owner signed must have been measured, and under that policy."""
    if block is None or answer.answer == "no":
        return answer
    why = idblock.differs(block, report.measurement, report.id_key_digest, report.author_key_digest)
    if not why and (report.policy, report.guest_svn) != (block.policy, block.svn):
        why = f"its policy is {report.policy:#x} and its version {report.guest_svn}, not {block.policy:#x} and {block.svn}"
    if why:
        return no("expected", why, "it was started with another id block, or with none")
    seen = [f"it is what the id block says, signed by the key {block.id_key.hex()}"]
    return yes("expected", [*(answer.evidence if answer.answer == "yes" else ()), *seen])


def _genuine(
    report: SnpReport,
    product: str,
    certificates: Sequence[Certificate],
    lists: Sequence[CertificateRevocationList],
    at: datetime,
) -> Answer:
    if not report.by:
        return no("genuine", "it is not signed: whoever started the guest asked for none", "start it with keys in use")
    chain = _chain(certificates)
    if not chain:
        missing = f"the certificates of the {report.by}, of its issuer and of AMD's root"
        return not_judged(
            "genuine", f"{missing} were not given", f"put them into the folder of --certs: {_where(report, product)}"
        )
    try:
        seen, complete = check_chain(chain, lists, at, listed=False)
        seen += _of_this_processor(report, product, chain[0])
        _signature(report, chain[0])
    except (UntrustedError, MalformedError) as error:
        return no("genuine", str(error), f"ask AMD for the certificates anew: {_where(report, product)}")
    seen.append(f"{named(chain[0])} signed the report")
    if not complete:
        fix = f"get {_KDS}/{report.by.lower()}/v1/{product or 'Milan'}/crl into the folder of --certs"
        return not_judged("genuine", "nobody said whether a certificate on the way was revoked", fix, seen)
    return yes("genuine", seen)


def _chain(certificates: Sequence[Certificate]) -> list[Certificate]:
    """From the leaf, which has AMD's extensions, by its issuers to a root known here."""
    leaf = next((one for one in certificates if _extension(one, "3.1") is not None), None)
    root = root_of(certificates)
    middle = next((one for one in certificates if leaf is not None and one.subject == leaf.issuer), None)
    return [leaf, middle, root] if leaf is not None and middle is not None and root is not None else []


def _where(report: SnpReport, product: str) -> str:
    if report.by == "VLEK":
        return f"the VLEK comes from the cloud's operator, {_KDS}/vlek/v1/{product or 'PRODUCT'}/cert_chain"
    name = product or "PRODUCT"
    return f"{address_of(report, name, _KDS)} and {_KDS}/vcek/v1/{name}/cert_chain"


def address_of(report: SnpReport, product: str, base: str) -> str:
    """Where the certificate of the report's key is to be had, by chip and level."""
    spl = {"fmc": "fmcSPL", "bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
    query = "&".join(f"{spl[part]}={value:02d}" for part, value in report.levels(product).items())
    chip = report.chip_id[:8].hex() if product == "Turin" else report.chip_id.hex()
    return f"{base}/vcek/v1/{product}/{chip}?{query}"


def _extension(certificate: Certificate, number_of: str) -> bytes | None:
    from cryptography.x509 import UnrecognizedExtension

    try:
        found = [one.value for one in certificate.extensions if one.oid.dotted_string == _AMD + number_of]
    except ValueError:
        return None
    return found[0].value if found and isinstance(found[0], UnrecognizedExtension) else None


def _product_of(certificates: Iterable[Certificate]) -> str:
    """The family of processors a certificate is for: the part before the stepping of AMD's product name."""
    for certificate in certificates:
        value = _extension(certificate, "2")
        if value is not None and len(value) > 2:
            return value[2:].decode("ascii", "replace").split("-")[0]
    return ""


def _of_this_processor(report: SnpReport, product: str, leaf: Certificate) -> list[str]:
    """The certificate is for the chip and the level in the report. Raises UntrustedError, MalformedError."""
    said = _product_of([leaf])
    if report.product and said != report.product:
        raise UntrustedError(f"the certificate is for {said or 'no product'}, the report says {report.product}")
    for part, level in report.levels(product).items():
        value = _extension(leaf, _EXTENSIONS[part])
        if value is None or value[:1] != b"\x02" or int.from_bytes(value[2:], "big") != level:
            shown = "nothing" if value is None else int.from_bytes(value[2:], "big")
            raise UntrustedError(f"the certificate is for {part} {shown}, the report says {level}")
    cloud = _extension(leaf, "5")
    if (report.by == "VLEK") != (cloud is not None):
        raise UntrustedError(f"the report says it was signed by {report.by}, and the certificate is for another kind of key")
    if cloud is not None:
        called = cloud[2:].decode("ascii", "replace")
        return [f"the certificate is for the level of the report, and of the cloud {called!r}, each of whose hosts signs so"]
    if report.masked:
        return ["the certificate is for the level of the report; which chip it is the host keeps to itself"]
    chip = _extension(leaf, "4")
    if chip is None or chip != (report.chip_id[: len(chip)] if len(chip) == 8 else report.chip_id):
        raise UntrustedError("the certificate is for another chip than the report")
    return ["the certificate is for the chip and the level of the report"]


def _signature(report: SnpReport, leaf: Certificate) -> None:
    """Raises UntrustedError."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    key = leaf.public_key()
    r, s = (number(report.raw[at : at + 72]) for at in (_SIGNED, _SIGNED + 72))
    if any(report.raw[_SIGNED + 144 :]) or max(r, s) >> 384 or not isinstance(key, EllipticCurvePublicKey):
        raise UntrustedError("its signature has not the form of one")
    if not signed(key, r, s, report.raw[:_SIGNED], bits=384):
        raise UntrustedError(f"the report was not signed by {named(leaf)}, or was changed since")


_BITS = {
    16: "other threads on its cores", 18: "a migration agent", 19: "debugging", 20: "one socket alone",
    21: "CXL devices", 22: "AES-256-XTS alone", 23: "no RAPL", 24: "ciphertext hidden", 25: "no page swapped",
}  # fmt: skip


def _policy_words(policy: int) -> list[str]:
    return [word for bit, word in _BITS.items() if policy >> bit & 1]


def _policy(report: SnpReport, demanded: Policy) -> Answer:
    has = {name: bool(report.policy >> bit & 1) for name, bit in
           (("smt", 16), ("migration_agent", 18), ("debug", 19), ("single_socket", 20))}  # fmt: skip
    wrong = ["a report of SEV-SNP does not say whether Secure Boot was on"] if demanded.secure_boot else []
    if has["debug"] and not demanded.debug:
        wrong.append("the host may debug the guest, and so read its memory")
    if has["migration_agent"] and not demanded.migration_agent:
        wrong.append("an agent beside it may move it elsewhere")
    if has["smt"] and not demanded.smt:
        wrong.append("it may share its cores with other guests")
    if demanded.single_socket and not has["single_socket"]:
        wrong.append("it may run on several sockets")
    if report.vmpl not in demanded.vmpl:
        wrong.append(f"the report comes from privilege level {report.vmpl}, not from {' or '.join(map(str, demanded.vmpl))}")
    if wrong:
        return no("policy", "; ".join(wrong), "start the guest under another policy, or demand less of it")
    said = [f"{name}: {'yes' if value else 'no'}" for name, value in has.items()]
    return yes("policy", [*said, f"privilege level {report.vmpl}"])


def _tcb(levels: dict[str, int], policy: Policy) -> Answer:
    demanded = late.asdict(policy.floor)
    if absent := [part for part, least in demanded.items() if least and part not in levels]:
        return no("tcb", f"{', '.join(absent)} was demanded, which this processor has not", "leave it out of the floor")
    floor = {part: demanded[part] for part in levels}
    if not any(floor.values()):
        why = "no least level was demanded, and AMD says nowhere in a form to be read which is the newest"
        said = ", ".join(f"{part} = {value}" for part, value in levels.items())
        return not_judged("tcb", why, f"write floor = {{{said}}} or more into the file of --policy", [said])
    low = [
        f"{part} is {levels[part]}, at least {least} is demanded" for part, least in floor.items() if levels[part] < least
    ]
    if low:
        return no("tcb", "; ".join(low), "the host's owner updates firmware and microcode")
    return yes("tcb", [f"{part} {levels[part]}, at least {least}" for part, least in floor.items()])

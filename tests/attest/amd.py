"""A maker of processors of our own: a root, its certificates as AMD writes them, and reports its keys sign."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

AMD = "1.3.6.1.4.1.3704.1."
NOW = datetime(2026, 1, 31, tzinfo=UTC)
CHIP = bytes(range(64))
NONCE = b"asked today"
MEASURED = bytes(range(100, 148))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Maker:
    """Root, intermediate, and a processor's key, for one family; ``levels`` are parts' versions in AMD's order of bytes."""

    def __init__(self, product: str = "Milan", levels: bytes = bytes([3, 1, 0, 0, 0, 0, 14, 209])) -> None:
        self.product, self.levels = product, levels
        self.root_key, self.middle_key = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
        self.key = ec.generate_private_key(ec.SECP384R1())

    def _signed(self, builder: x509.CertificateBuilder, key: rsa.RSAPrivateKey) -> x509.Certificate:
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
        return builder.sign(key, hashes.SHA384(), rsa_padding=pss)

    def _builder(self, name: str, issuer: str, key: object, days: int = 3650) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name(issuer)).public_key(key)  # type: ignore[arg-type]
        made = made.serial_number(7 if name != "root" else 1)
        return made.not_valid_before(NOW - timedelta(days=10)).not_valid_after(NOW + timedelta(days=days))

    @cached_property
    def root(self) -> x509.Certificate:
        ca = x509.BasicConstraints(ca=True, path_length=None)
        return self._signed(self._builder("root", "root", self.root_key.public_key()).add_extension(ca, True), self.root_key)

    @cached_property
    def middle(self) -> x509.Certificate:
        made = self._builder("middle", "root", self.middle_key.public_key())
        return self._signed(made.add_extension(x509.BasicConstraints(ca=True, path_length=0), True), self.root_key)

    def leaf(
        self, *, chip: bytes = CHIP, levels: bytes | None = None, days: int = 3650, cloud: bytes = b""
    ) -> x509.Certificate:
        """The certificate of the processor's key, or of a cloud's."""
        levels = self.levels if levels is None else levels
        order = ("3.9", "3.1", "3.2", "3.3", "", "", "", "3.8") if self.product == "Turin" else (
            "3.1", "3.2", "", "", "", "", "3.3", "3.8"
        )  # fmt: skip
        said = {"1": b"\x02\x01\x01", "2": b"\x16" + bytes([len(self.product) + 3]) + self.product.encode() + b"-B0"}
        said |= {oid: b"\x02\x01" + bytes([level]) if level < 128 else b"\x02\x02\0" + bytes([level])
                 for oid, level in zip(order, levels, strict=True) if oid}  # fmt: skip
        if chip:
            said["4"] = chip
        if cloud:
            said["5"] = b"\x16" + bytes([len(cloud)]) + cloud
        made = self._builder("processor", "middle", self.key.public_key(), days)
        for oid, value in said.items():
            made = made.add_extension(x509.UnrecognizedExtension(ObjectIdentifier(AMD + oid), value), critical=False)
        return self._signed(made, self.middle_key)

    def revoked(self, *serials: int, by: str = "root", until: datetime = NOW + timedelta(days=9)) -> bytes:
        """A list of revoked certificates."""
        made = x509.CertificateRevocationListBuilder().issuer_name(_name(by)).last_update(NOW - timedelta(days=1))
        made = made.next_update(until)
        for serial in serials:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - timedelta(days=2)).build()
            made = made.add_revoked_certificate(one)
        return made.sign(self.root_key, hashes.SHA384()).public_bytes(Encoding.DER)

    def report(
        self,
        *,
        version: int = 3,
        policy: int = 0x30000,
        vmpl: int = 0,
        key: int = 0,
        data: bytes = NONCE,
        fields: Mapping[int, bytes] | None = None,
    ) -> bytes:
        """A report of a guest on this processor, signed; ``fields`` are others of its, by their place."""
        raw = bytearray(1184)

        def put(at: int, value: bytes) -> None:
            raw[at : at + len(value)] = value

        put(0, version.to_bytes(4, "little"))
        put(8, policy.to_bytes(8, "little"))
        put(0x30, vmpl.to_bytes(4, "little"))
        put(0x34, b"\x01")
        put(0x48, key.to_bytes(4, "little"))
        put(0x50, data)
        put(0x90, MEASURED)
        put(0x180, self.levels)
        put(0x1A0, CHIP)
        if version >= 3:
            put(0x188, bytes({"Milan": (0x19, 1, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 2, 1)}[self.product]))
        for at, value in (fields or {}).items():
            put(at, value)
        r, s = decode_dss_signature(self.key.sign(bytes(raw[:0x2A0]), ec.ECDSA(hashes.SHA384())))
        put(0x2A0, r.to_bytes(72, "little"))
        put(0x2A0 + 72, s.to_bytes(72, "little"))
        return bytes(raw)

    def chain(self, leaf: x509.Certificate | None = None) -> tuple[bytes, ...]:
        """The three certificates."""
        return tuple(one.public_bytes(Encoding.PEM) for one in (leaf or self.leaf(), self.middle, self.root))

"""What must be measured: known answers of sev-snp-measure, MRTD of real firmware, id blocks and each byte of them."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("sevsnpmeasure")

from attest import made_ovmf, sev_qemu
from attest.amd import MEASURED, NONCE, NOW, Maker
from attest.vectors import VECTORS, vector
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typed import call

from tinamou import late
from tinamou.attest import Known, Launch, MalformedError, idblock, measured_by, read_policy, snp_measurement, tdvf, verify
from tinamou.attest.certificates import ROOTS, pin
from tinamou.attest.expected import launch_of
from tinamou.errors import PlanError, SpecError

NOTHING = Path("/dev/null")
WORDS = "console=ttyS0 loglevel=7"
ANSWERS = [
    ("sev-snp", 1, True, WORDS, 0x21, "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba"),
    ("sev-snp", 1, True, WORDS, 0x1, "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362"),
    ("sev-snp", 1, False, "", 0x21, "e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf"),
    ("sev-snp", 1, False, "", 0x1, "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ec"),
    ("sev-snp", 4, True, "", 0x21, "4953b1fb416fa874980e8442b3706d345926d5f38879134e00813c5d7abcbe78"),
    ("sev-snp", 4, True, "", 0x1, "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a9"),
    ("sev-es", 1, True, "", 0x1, "13810ae661ea11e2bb205621f582fee268f0367c8f97bc297b7fadef3e12002c"),
    ("sev-es", 4, True, "", 0x21, "0dccbcaba8e90b261bd0d2e1863a2f9da714768b7b2a19363cd6ae35aa90de91"),
    ("sev", 1, True, WORDS, 0x21, "82a3ee5d537c3620628270c292ae30cb40c3c878666a7890ee7ef2a08fb535ff"),
    ("sev", 1, True, "", 0x21, "77f613d7bbcdf12a73782ea9e88b0172aeda50d1a54201cb903594ff52846898"),
    ("sev-snp", 1, None, "", 0x21, "28797ae0afaba4005a81e629acebfb59e6687949d6be44007cd5506823b0dd66"),
    ("sev-snp", 1, None, "", 0x1, "da0296de8193586a5512078dcd719eccecbd87e2b825ad4148c44f665dc87df2"),
    ("sev", 1, None, "", 0x21, "b4c021e085fb83ceffe6571a3d357b4a98773c83c474e47f76c876708fe316da"),
]  # fmt: skip
"""Kind, vCPUs, whether a kernel is handed over (None: by firmware that measures none), its arguments, features, the digest's
first 32 bytes. All of theirs that are a QEMU guest's, without a module below it (SVSM).

Source: virtee/sev-snp-measure, tests/test_guest.py."""


@pytest.mark.parametrize(("kind", "cpus", "kernel", "append", "features", "digest"), ANSWERS)
def test_known_answers(kind: str, cpus: int, kernel: bool | None, append: str, features: int, digest: str) -> None:
    firmware = "ovmf_OvmfX64_suffix.bin" if kernel is None else "ovmf_AmdSev_suffix.bin"
    vector(firmware)
    files = (NOTHING, NOTHING) if kernel else (None, None)
    launch = Launch(VECTORS / firmware, cpus, *files, append, kind)
    assert snp_measurement(launch, "EPYC-v4", features).hex()[:64] == digest


@pytest.mark.parametrize("kind", ["sev", "sev-es", "sev-snp"])
def test_firmware_that_measures_no_kernel_has_none_handed_over(kind: str) -> None:
    vector("ovmf_OvmfX64_suffix.bin")
    with pytest.raises((PlanError, SpecError), match="Kernel specified but OVMF"):
        snp_measurement(Launch(VECTORS / "ovmf_OvmfX64_suffix.bin", 1, NOTHING, NOTHING, "", kind), "EPYC-v4")


KERNEL, INITRD = b"a kernel" * 1000, b"an initrd" * 500


def hashes(append: str) -> bytes:
    """What QEMU hands over (target/i386/sev.c): 168 bytes with three hashes, padded to 176."""
    return sev_qemu.hashes_page([append.encode() + b"\0", INITRD, KERNEL])


def pages_added(image: bytes, table: bytes, registers: list[bytes]) -> bytes:
    """The launch digest of SEV-SNP by the book (AMD 56860, 8.17.2): of each page its hash, type and place."""
    digest = bytes(48)

    def add(kind: int, place: int, content: bytes) -> None:
        nonlocal digest
        said = digest + content + (0x70).to_bytes(2, "little") + bytes([kind, 0, 0, 0, 0, 0]) + place.to_bytes(8, "little")
        digest = hashlib.sha384(said).digest()

    for at in range(0, len(image), 4096):
        add(1, (1 << 32) - len(image) + at, hashlib.sha384(image[at : at + 4096]).digest())
    for start, size, kind in made_ovmf.SECTIONS:
        for place in range(start, start + size, 4096):
            if kind == 0x10 and table:
                page = bytes(made_ovmf.HASHES_AT & 0xFFF) + table
                add(1, place, hashlib.sha384(page.ljust(4096, b"\0")).digest())
            else:
                add({1: 3, 2: 5, 3: 6, 0x10: 3}[kind], place, bytes(48))
    for page in registers:
        add(2, 0xFFFFFFFFF000, hashlib.sha384(page).digest())
    return digest


@pytest.mark.parametrize("append", ["", WORDS])
@pytest.mark.parametrize("cpus", [1, 4])
def test_digests_by_the_book(cpus: int, append: str, tmp_path: Path) -> None:
    """Of firmware made here: SEV's whole digest, SEV-ES's and SEV-SNP's over the first registers as the library has them."""
    from sevsnpmeasure import vcpu_types
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vmsa import VMSA

    image = made_ovmf.image()
    for name, data in (("firmware", image), ("kernel", KERNEL), ("initrd", INITRD)):
        (tmp_path / name).write_bytes(data)
    whole = Launch(tmp_path / "firmware", cpus, tmp_path / "kernel", tmp_path / "initrd", append, "sev")
    plain = late.replace(whole, kernel=None, initrd=None, append="")
    measured = image + hashes(append)
    assert snp_measurement(whole, "") == hashlib.sha256(measured).digest()
    assert snp_measurement(plain, "") == hashlib.sha256(image).digest()

    def registers(mode: str) -> list[bytes]:
        return list(VMSA(SevMode[mode], made_ovmf.RESET, vcpu_types.CPU_SIGS["EPYC-v4"], int(mode == "SEV_SNP")).pages(cpus))

    found = snp_measurement(late.replace(whole, kind="sev-es"), "EPYC-v4")
    assert found == hashlib.sha256(measured + b"".join(registers("SEV_ES"))).digest()
    for launch, table in ((whole, hashes(append)), (plain, b"")):
        digest = pages_added(image, table, registers("SEV_SNP"))
        assert snp_measurement(late.replace(launch, kind="sev-snp"), "EPYC-v4") == digest


def test_the_plan_says_what_is_measured() -> None:
    words = ["-bios", "/f", "-smp", "cpus=4,sockets=1", "-object", '{"qom-type":"sev-guest","id":"sev0","policy":15}']
    assert launch_of(words) == Launch(Path("/f"), 4, kind="sev-es")
    assert launch_of([*words[:4], "-object", "sev-guest,id=sev0,policy=0xb"]).kind == "sev"
    assert launch_of([*words[:4], "-object", '{"qom-type":"tdx-guest","id":"tdx0"}']).kind == "tdx"
    with pytest.raises(PlanError):
        launch_of(["-bios", "/f", "-object", '{"qom-type":"rng-random","id":"sev-snp-guest"}'])


OVMF = Path("/usr/share/ovmf/OVMF.fd")
ovmf = pytest.mark.skipif(not OVMF.is_file(), reason="Debian's OVMF.fd, which has TDX metadata, is not installed (ovmf)")


@ovmf
def test_mrtd_of_real_firmware(tmp_path: Path) -> None:
    image = OVMF.read_bytes()
    found = tdvf.sections(image)
    code = next(one for one in found if one.type == 0)
    assert code.measured and code.address + code.size == 1 << 32 and code.at + code.length == len(image)
    assert {one.type for one in found} == {0, 1, 2, 3} and sum(one.measured for one in found) == 1
    digest = tdvf.mrtd(image)
    assert digest == mrtd_by_the_book(image)
    ran = call("attest", "expect", "--kind", "tdx", "--firmware", str(OVMF), "--json")
    told = json.loads(ran.stdout)
    assert told["mrtd"] == digest.hex() and set(told["not_computed"]) == {"rtmr0", "rtmr1", "rtmr2"}
    for at in (code.at, code.at + 70_000, len(image) - 1):
        turned = bytearray(image)
        turned[at] ^= 1
        assert tdvf.mrtd(bytes(turned)) != digest
    text = call("attest", "expect", "--kind", "tdx", "--firmware", str(OVMF)).stdout
    (tmp_path / "registers.toml").write_text(text)  # it is what --expect reads
    import tomllib

    assert tomllib.loads(text) == {"mrtd": digest.hex()} and "# rtmr0: where memory is" in text


def mrtd_by_the_book(image: bytes) -> bytes:
    """MRTD once more, from OVMF's metadata as it lies there: six sections at the place its table names."""
    at = image.rindex(b"TDVF")
    digest = hashlib.sha384()
    for number in range(int.from_bytes(image[at + 12 : at + 16], "little")):
        one = image[at + 16 + 32 * number :][:32]
        start, _, address, size, _, attributes = (
            int.from_bytes(one[a:b], "little") for a, b in ((0, 4), (4, 8), (8, 16), (16, 24), (24, 28), (28, 32))
        )
        for page in range(size // 4096):
            where = address + page * 4096
            digest.update(b"MEM.PAGE.ADD\0\0\0\0" + where.to_bytes(8, "little") + bytes(104))
            for piece in range(16) if attributes & 1 else ():
                digest.update(b"MR.EXTEND" + bytes(7) + (where + 256 * piece).to_bytes(8, "little") + bytes(104))
                digest.update(image[start + page * 4096 + piece * 256 :][:256])
    return digest.digest()


@ovmf
def test_firmware_that_cannot_be_measured() -> None:
    image = OVMF.read_bytes()
    at = image.rindex(b"TDVF")

    def turned(where: int, value: bytes) -> bytes:
        return image[:where] + value + image[where + len(value) :]

    broken = [b"", bytes(4096), image[:-1], turned(len(image) - 50, b"\x05\0"), turned(at, b"XDVF")]
    broken += [turned(at + 12, b"\xff"), turned(at + 16, b"\xff" * 8), turned(at + 16 + 16, b"\xff" * 8)]
    for one in broken:
        with pytest.raises(MalformedError):
            tdvf.mrtd(one)
    with pytest.raises(SpecError):
        measured_by(Launch(Path("/nonexistent"), 1, kind="tdx"))


ID_KEY = ec.derive_private_key(
    0xCF650914D853F58A2F7447E7BBFD2850FEBCD4CEC4BC5FB9152749C903172B4B5A0C0FC9CA8DFB0A29F05627C9DB0B2A, ec.SECP384R1()
)
AUTHOR = ec.derive_private_key(
    0x32A77AF3B0EB003152156ED99240453CDD80B9AF410E5997D25F7C30881432B448E856C5C304F4E9BEFCB3336699DBB0, ec.SECP384R1()
)
"""Keys of virtee/sev's tests (tests/id-block.rs), whose block and digests are known."""
DIGEST = bytes.fromhex("a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d8966068e615bb99efd13d214b35c231715b38e263dc6059745")


def test_an_id_block_is_made_and_checked() -> None:
    made = idblock.make(DIGEST, ID_KEY, AUTHOR)
    assert base64.b64encode(made.block).decode() == (
        "oU1jg0HlZ0Yo/h4C++3r5eWrT68d1y2JZgaOYVu5nv0T0hSzXCMXFbOOJj3GBZdF"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAwAAAAAA"
    )
    assert base64.b64encode(made.id_key) == b"WfssaG36T+9J84M5qndckAUcKNVzg93DuvO160sUlt87DbvcuuX+J2d6ZEggdz/i"
    assert base64.b64encode(made.author_key) == b"7tgRafsMteDsNHlPEo/U4MSkb2fGWhrfqB/LJLzAiMJyNpt//D6ytq9qQoShs2xf"
    assert idblock.check(made.block, made.auth) == idblock.parse(made.written()) == made
    alone = idblock.make(DIGEST, ID_KEY)
    assert idblock.check(alone.block, alone.auth) == alone and alone.author_key == bytes(48)


def test_anothers_id_block_is_checked() -> None:
    """The block of virtee/sev's tests, signed by its code."""
    auth = vector("id_auth_block.bin")
    found = idblock.check(idblock.make(DIGEST, ID_KEY).block, auth)
    assert base64.b64encode(found.author_key).startswith(b"7tgRafsMteDsNHlP")


def by_the_book(key: ec.EllipticCurvePrivateKey, data: bytes) -> tuple[bytes, bytes]:
    """A signature and the key's public part as AMD 56860 has them: 512 bytes, 1028; the lowest byte first."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    numbers = key.public_key().public_numbers()
    public = b"\2\0\0\0" + numbers.x.to_bytes(72, "little") + numbers.y.to_bytes(72, "little") + bytes(880)
    signature = b"".join(
        one.to_bytes(72, "little") for one in decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384())))
    )
    return signature + bytes(368), public


def test_an_id_block_that_was_made_elsewhere() -> None:
    """Laid out once more, from the table of ID_AUTH_INFO: where each signature and key is."""
    block = DIGEST + bytes(32) + b"\1\0\0\0" + bytes(4) + b"\0\0\3\0" + bytes(4)
    signature, mine = by_the_book(ID_KEY, block)
    countersigned, author = by_the_book(AUTHOR, mine)
    auth = (b"\1\0\0\0" * 2).ljust(0x40, b"\0") + signature + mine
    auth = (auth.ljust(0x680, b"\0") + countersigned + author).ljust(4096, b"\0")
    assert base64.b64encode(idblock.check(block, auth).author_key) == base64.b64encode(hashlib.sha384(author).digest())
    assert base64.b64encode(idblock.check(block, auth).id_key).startswith(b"WfssaG36T+9J84M5")
    with pytest.raises(MalformedError, match="author"):
        idblock.check(block, auth[:0x680] + by_the_book(AUTHOR, block)[0] + auth[0x680 + 512 :])


def test_no_byte_of_an_id_block_can_change() -> None:
    made = idblock.make(DIGEST, ID_KEY, AUTHOR, family=b"f", image=b"i", svn=3)
    for at in range(96):
        turned = bytes([*made.block[:at], made.block[at] ^ 1 << at % 8, *made.block[at + 1 :]])
        with pytest.raises(MalformedError):
            idblock.check(turned, made.auth)
    for at in [*range(0x8C4), *range(0x8C4, 4096, 37)]:
        turned = bytes([*made.auth[:at], made.auth[at] ^ 1 << at % 8, *made.auth[at + 1 :]])
        with pytest.raises(MalformedError):
            idblock.check(made.block, turned)


def test_a_report_of_a_guest_with_an_id_block(monkeypatch: pytest.MonkeyPatch) -> None:
    milan, made = Maker(), idblock.make(MEASURED, ID_KEY, AUTHOR)
    monkeypatch.setitem(ROOTS, pin(milan.root), "a root of our own")
    told = Known(
        nonce=NONCE, id_block=made, certificates=milan.chain(), revoked=(milan.revoked(),), at=NOW,
        policy=read_policy(b"floor = {snp = 1}"),
    )  # fmt: skip
    good = milan.report(fields={0xE0: made.id_key, 0x110: made.author_key})
    assert verify(good, told).proven
    for fields in ({}, {0xE0: made.id_key}, {0xE0: made.author_key, 0x110: made.author_key}):
        assert verify(milan.report(fields=fields), told).of("expected").answer == "no"
    other = idblock.make(MEASURED, ID_KEY, AUTHOR, svn=1)
    assert "version" in verify(good, late.replace(told, id_block=other)).of("expected").why
    assert verify(good, late.replace(told, measured={"measurement": bytes(48)})).of("expected").answer == "no"


def test_an_id_block_by_the_command(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(ID_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    out = tmp_path / "block.json"
    ran = call("attest", "id-block", DIGEST.hex(), "--key", str(key), "-o", str(out), "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["id_key"].startswith("59fb2c68") and idblock.parse(out.read_bytes()).block[:48] == DIGEST
    ran = call("attest", "id-block", "12", "--key", str(key), "-o", str(out))
    assert ran.returncode == 110 and "it has 48" in ran.stderr
    ran = call("attest", "id-block", DIGEST.hex(), "--key", str(out))
    assert ran.returncode == 110 and "no private key" in ran.stderr
    data = out.read_bytes().replace(b"AAAA", b"AAAB", 1)
    out.write_bytes(data)
    ran = call("attest", "verify", str(key), "--id-block", str(out))
    assert ran.returncode == 110 and "id_block" in ran.stderr

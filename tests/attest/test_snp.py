"""Reports of SEV-SNP: the right answer to each question, and no wrong yes; by a maker of our own, and by AMD's vector."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

pytest.importorskip("cryptography")

from attest.amd import CHIP, MEASURED, NONCE, NOW, Maker
from attest.vectors import MISSING, VECTORS

from tinamou.attest import Known, MalformedError, Policy, Verdict, read_policy, verify
from tinamou.attest.certificates import ROOTS, pin
from tinamou.errors import SpecError

FLOOR = read_policy(b"floor = {bootloader = 3, snp = 14, microcode = 209}")


@pytest.fixture(scope="module")
def milan() -> Maker:
    return Maker()


@pytest.fixture(autouse=True)
def trusted(milan: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROOTS, pin(milan.root), "a root of our own")


def known(maker: Maker, **changed: object) -> Known:
    told: dict[str, object] = {
        "nonce": NONCE,
        "measured": {"measurement": MEASURED},
        "certificates": maker.chain(),
        "revoked": (maker.revoked(),),
        "policy": FLOOR,
        "at": NOW,
    }
    return Known(**{**told, **changed})  # type: ignore[arg-type]


def answers(verdict: Verdict) -> dict[str, str]:
    return {one.question: one.answer for one in verdict.answers}


def differs(verdict: Verdict) -> dict[str, str]:
    return {question: answer for question, answer in answers(verdict).items() if answer != "yes"}


def test_all_five_hold(milan: Maker) -> None:
    verdict = verify(milan.report(), known(milan))
    assert verdict.proven and differs(verdict) == {}
    assert verdict.says["level"] == "bootloader 3, tee 1, snp 14, microcode 209"
    assert "and not revoked by its list of 2026-01-30" in " ".join(verdict.of("genuine").evidence)


@pytest.mark.parametrize(("version", "data"), [(2, NONCE), (5, NONCE), (3, NONCE + bytes(53))])
def test_versions(milan: Maker, version: int, data: bytes) -> None:
    assert verify(milan.report(version=version, data=data), known(milan)).proven


def test_each_question_has_its_own_answer(milan: Maker) -> None:
    report = milan.report()
    other = b"asked yesterday"
    assert differs(verify(report, known(milan, nonce=other))) == {"fresh": "no"}
    assert differs(verify(report, known(milan, nonce=NONCE[:-1]))) == {"fresh": "no"}
    assert differs(verify(report, known(milan, nonce=b""))) == {"fresh": "not judged"}
    assert differs(verify(report, known(milan, measured={"measurement": bytes(48)}))) == {"expected": "no"}
    assert differs(verify(report, known(milan, measured={}))) == {"expected": "not judged"}
    assert differs(verify(report, known(milan, policy=Policy()))) == {"tcb": "not judged"}
    assert differs(verify(report, known(milan, policy=read_policy(b"floor = {snp = 15}")))) == {"tcb": "no"}
    assert differs(verify(report, known(milan, certificates=()))) == {"genuine": "not judged"}
    assert differs(verify(report, known(milan, revoked=()))) == {"genuine": "not judged"}


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"policy": 0xB0000}, {"policy": "no"}),  # debugging
        ({"policy": 0x70000}, {"policy": "no"}),  # a migration agent
        ({"vmpl": 1}, {"policy": "no"}),
        ({"key": 7 << 2}, {"genuine": "no"}),  # not signed by AMD's key
    ],
)
def test_what_a_report_says(milan: Maker, said: dict[str, int], wrong: dict[str, str]) -> None:
    assert differs(verify(milan.report(**said), known(milan))) == wrong  # type: ignore[arg-type]


def test_what_is_demanded(milan: Maker) -> None:
    floor = b"floor = {snp = 1}\n"
    assert differs(verify(milan.report(), known(milan, policy=read_policy(b"smt = false\n" + floor)))) == {"policy": "no"}
    strict = read_policy(b"single_socket = true\n" + floor)
    assert differs(verify(milan.report(), known(milan, policy=strict))) == {"policy": "no"}
    assert verify(milan.report(policy=0x130000), known(milan, policy=strict)).proven
    lax = read_policy(b"debug = true\nmigration_agent = true\nvmpl = [0, 2]\n" + floor)
    assert verify(milan.report(policy=0xF0000, vmpl=2), known(milan, policy=lax)).proven


def test_what_a_report_does_not_speak_of_is_no(milan: Maker) -> None:
    report = milan.report()
    assert differs(verify(report, known(milan, policy=read_policy(b"floor = {microcode = 1, fmc = 1}")))) == {"tcb": "no"}
    secure = read_policy(b"secure_boot = true\nfloor = {snp = 1}")
    assert differs(verify(report, known(milan, policy=secure))) == {"policy": "no"}
    assert differs(verify(report, known(milan, key=bytes(34), collateral="{}"))) == {"genuine": "no", "tcb": "no"}


def test_certificates_of_another(milan: Maker) -> None:
    report = milan.report()
    no = {"genuine": "no"}
    assert differs(verify(report, known(milan, certificates=milan.chain(milan.leaf(chip=bytes(64)))))) == no
    assert differs(verify(report, known(milan, certificates=milan.chain(milan.leaf(levels=bytes(8)))))) == no
    assert differs(verify(report, known(milan, certificates=milan.chain(milan.leaf(days=-1))))) == no
    assert differs(verify(report, known(milan, at=datetime(2040, 1, 1, tzinfo=UTC)))) == no
    forger = Maker()
    assert differs(verify(forger.report(), known(milan))) == no
    assert differs(verify(forger.report(), known(milan, certificates=forger.chain()))) == {
        "genuine": "not judged"
    }  # no root
    mixed = (*forger.chain()[:2], milan.chain()[2])
    assert differs(verify(forger.report(), known(milan, certificates=mixed))) == no


def test_revoked(milan: Maker) -> None:
    report = milan.report()
    assert differs(verify(report, known(milan, revoked=(milan.revoked(7),)))) == {"genuine": "no"}
    assert differs(verify(report, known(milan, revoked=(milan.revoked(8),)))) == {}
    assert differs(verify(report, known(milan, revoked=(milan.revoked(until=NOW),), at=NOW.replace(day=31, hour=1)))) == {
        "genuine": "not judged"
    }
    forged = Maker().revoked()
    assert differs(verify(report, known(milan, revoked=(forged,)))) == {"genuine": "not judged"}


def test_turin_has_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    turin = Maker("Turin", bytes([1, 2, 3, 4, 0, 0, 0, 80]))
    monkeypatch.setitem(ROOTS, pin(turin.root), "a root of our own")
    policy = read_policy(b"floor = {fmc = 1, bootloader = 2, tee = 3, snp = 4, microcode = 80}")
    verdict = verify(turin.report(), known(turin, policy=policy, certificates=turin.chain(turin.leaf(chip=CHIP[:8]))))
    assert verdict.proven
    assert verdict.says["level"] == "fmc 1, bootloader 2, tee 3, snp 4, microcode 80"


@pytest.mark.parametrize(("product", "version"), [("Milan", 2), ("Genoa", 3), ("Genoa", 5)])
def test_a_clouds_key(product: str, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """VLEK: the certificate names the cloud and no chip; neither kind of key stands for the other."""
    maker, signed_by_cloud = Maker(product), 1 << 2
    monkeypatch.setitem(ROOTS, pin(maker.root), "a root of our own")
    clouds = maker.chain(maker.leaf(chip=b"", cloud=b"A Cloud"))
    verdict = verify(maker.report(version=version, key=signed_by_cloud), known(maker, certificates=clouds))
    assert verdict.proven and "of the cloud 'A Cloud'" in " ".join(verdict.of("genuine").evidence)
    for key, chain in ((signed_by_cloud, maker.chain()), (0, clouds)):
        found = verify(maker.report(version=version, key=key), known(maker, certificates=chain)).of("genuine")
        assert found.answer == "no" and "another kind of key" in found.why


def judged(report: bytes, told: Known) -> str:
    try:
        return verify(report, told).of("genuine").answer
    except MalformedError:
        return "no report"


def test_no_byte_of_a_report_can_change(milan: Maker) -> None:
    report, told = milan.report(), known(milan)
    wrong = []
    for at in range(len(report)):
        changed = bytearray(report)
        changed[at] ^= 1 << at % 8
        if judged(bytes(changed), told) == "yes":
            wrong.append(at)
    assert wrong == []
    for length in (0, 4, 1183, 1185):
        assert judged(report[:length].ljust(length, b"\0"), told) == "no report"


def amd() -> Known:
    if not VECTORS.is_dir():
        pytest.skip(MISSING)
    chain = tuple((VECTORS / name).read_bytes() for name in ("vcek.testcer", "milan.testcer"))
    return Known(certificates=chain, at=datetime(2023, 1, 1, tzinfo=UTC))


def test_amds_vector() -> None:
    told = amd()
    verdict = verify((VECTORS / "attestation.bin").read_bytes(), told)
    assert answers(verdict) == {
        "genuine": "not judged", "fresh": "not judged", "expected": "not judged", "policy": "no", "tcb": "not judged",
    }  # fmt: skip
    assert verdict.of("genuine").evidence[-1] == "SEV-VCEK signed the report"
    assert verdict.says["measurement"].startswith("b07af962")
    assert "debugging" in verdict.says["guest policy"]
    assert "blSPL=02&teeSPL=00&snpSPL=05&ucodeSPL=68" not in verdict.of("genuine").fix  # they were given


def test_no_byte_of_amds_certificates_can_change() -> None:
    told = amd()
    report = (VECTORS / "attestation.bin").read_bytes()
    leaf, chain = told.certificates
    for at in range(0, len(leaf), 3):
        changed = bytearray(leaf)
        changed[at] ^= 1 << at % 8
        try:
            found = verify(report, Known(certificates=(bytes(changed), chain), at=told.at)).of("genuine")
        except MalformedError:
            continue
        assert "SEV-VCEK signed the report" not in found.evidence, at


def chain_flips(milan: Maker, step: int) -> None:
    """Bytes of leaf, issuer, root and of the list of revoked ones, one after the other: none may stay without a no."""
    from cryptography.hazmat.primitives.serialization import Encoding

    report, told = milan.report(), known(milan)
    whole = [one.public_bytes(Encoding.DER) for one in (milan.leaf(), milan.middle, milan.root)]
    assert verify(report, known(milan, certificates=tuple(whole))).proven
    wrong = []
    for which, data in enumerate([*whole, told.revoked[0]]):
        for at in range(0, len(data), step):
            turned = bytes([*data[:at], data[at] ^ 1 << at % 8, *data[at + 1 :]])
            chain = tuple(turned if number == which else one for number, one in enumerate(whole))
            lists = (turned,) if which == 3 else told.revoked
            if judged(report, known(milan, certificates=chain, revoked=lists)) == "yes":
                wrong.append((which, at))
    assert wrong == []


def test_a_signature_is_whole_bytes(milan: Maker) -> None:
    """How many bits at its end are none of it stands before a signature; nothing signs that, and zeros may be none of it."""
    from cryptography.hazmat.primitives.serialization import Encoding

    report, above = milan.report(), [one.public_bytes(Encoding.DER) for one in (milan.middle, milan.root)]

    def even(make: Callable[[int], bytes]) -> bytes:
        return next(made for number in range(1, 200) if not (made := make(number))[-1] & 1)

    leaf, listed = (
        even(lambda _: milan.leaf().public_bytes(Encoding.DER)),
        even(lambda number: milan.revoked(1 << 90 | number)),
    )
    assert verify(report, known(milan, certificates=(leaf, *above), revoked=(listed,))).proven
    for one in (leaf, listed):
        at = len(one) - 257  # the keys have 2,048 bits
        turned = bytes([*one[:at], 1, *one[at + 1 :]])
        chain = (turned if one is leaf else leaf, *above)
        assert judged(report, known(milan, certificates=chain, revoked=(turned if one is listed else listed,))) != "yes"


def test_a_list_whose_signature_has_no_form(milan: Maker) -> None:
    """The library raises its parser's error for it, not that it does not hold."""
    listed = bytearray(milan.revoked())
    at = listed.rindex(bytes.fromhex("06092a864886f70d01010c"))  # sha384WithRSAEncryption, once more beside the signature
    for place in range(at - 2, at + 13):
        turned = bytes([*listed[:place], listed[place] ^ 1, *listed[place + 1 :]])
        assert judged(milan.report(), known(milan, revoked=(turned,))) in ("not judged", "no report")


def test_few_bytes_of_a_chain_that_change(milan: Maker) -> None:
    chain_flips(milan, 31)


@pytest.mark.slow
def test_no_byte_of_a_chain_can_change(milan: Maker) -> None:
    chain_flips(milan, 1)


def test_where_certificates_are_to_be_had() -> None:
    amd()
    verdict = verify((VECTORS / "attestation.bin").read_bytes(), Known())
    assert "https://kdsintf.amd.com/vcek/v1/PRODUCT/3ac3fe21" in verdict.of("genuine").fix
    assert "blSPL=02&teeSPL=00&snpSPL=05&ucodeSPL=68" in verdict.of("genuine").fix


def test_a_policy_with_problems() -> None:
    with pytest.raises(SpecError) as told:
        read_policy(b"debug = 3\nvmlp = [0]\n[floor]\nsnp = 300\n")
    assert {one.path for one in told.value.problems} == {"policy.debug", "policy.vmlp", "policy.floor.snp"}
    with pytest.raises(SpecError):
        read_policy(b"debug = ")

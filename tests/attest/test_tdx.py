"""Quotes of TDX and logs of events: public vectors, each question, and no wrong yes."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("dcap_qvl")

from attest.vectors import MISSING, VECTORS

from tinamou.attest import Known, MalformedError, Verdict, eventlog, read_policy, verify
from tinamou.errors import SpecError

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason=MISSING)
AT = datetime(2025, 6, 19, 12, tzinfo=UTC)


def vector(name: str) -> bytes:
    data = (VECTORS / name).read_bytes()
    return gzip.decompress(data) if name.endswith(".gz") else data


def collateral() -> str:
    return vector("tdx_quote_collateral.json").decode()


def everything() -> Known:
    """All that can be known of the quote with collateral."""
    says = verify(vector("tdx_quote"), Known(at=AT)).says
    measured = {name: bytes.fromhex(says[name]) for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")}
    return Known(nonce=bytes.fromhex(says["report data"]), measured=measured, collateral=collateral(), at=AT)


def answers(verdict: Verdict) -> dict[str, str]:
    return {one.question: one.answer for one in verdict.answers}


def changed(known: Known, **said: object) -> Known:
    from tinamou import late

    return late.replace(known, **said)


def test_all_five_hold() -> None:
    verdict = verify(vector("tdx_quote"), everything())
    assert verdict.proven
    assert verdict.of("tcb").evidence == ("Intel says UpToDate",)


def test_each_question_has_its_own_answer() -> None:
    known, quote = everything(), vector("tdx_quote")

    def wrong(**said: object) -> dict[str, str]:
        found = answers(verify(quote, changed(known, **said)))
        return {question: answer for question, answer in found.items() if answer != "yes"}

    assert wrong(nonce=b"another") == {"fresh": "no"}
    assert wrong(nonce=bytes(65)) == {"fresh": "no"}
    assert wrong(measured={**known.measured, "rtmr2": bytes(48)}) == {"expected": "no"}
    assert wrong(measured={"mrtd": known.measured["mrtd"]}) == {"expected": "not judged"}
    assert wrong(measured={"measurement": bytes(48)}) == {"expected": "no"}
    assert wrong(collateral="") == {"genuine": "not judged", "tcb": "not judged"}
    assert wrong(at=datetime(2025, 9, 19, tzinfo=UTC)) == {"genuine": "no", "tcb": "no"}  # the collateral's term is over
    assert wrong(policy=read_policy(b"statuses = ['OutOfDate']")) == {"tcb": "no"}
    assert wrong(log=vector("ccel_data.dat.gz")) == {"expected": "no"}  # the log of another guest


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("tdx_prod_quote_SPR_E4.dat", AT),
        ("cos-113-tdx-quote.dat", AT),
        ("quote_v5_sample.dat", datetime(2026, 6, 1, tzinfo=UTC)),
    ],
)
def test_quotes_of_others(name: str, at: datetime) -> None:
    verdict = verify(vector(name), Known(at=at))
    assert verdict.of("genuine").evidence[-1] == "the enclave's key signed the quote"
    assert answers(verdict)["policy"] == "yes"


def test_the_log_gives_the_registers() -> None:
    log, quote = vector("ccel_data.dat.gz"), vector("cos-113-tdx-quote.dat")
    events = eventlog.parse(log)
    assert len(events) == 44  # the first says which hash functions there are
    says = verify(quote, Known(at=AT)).says
    registers = eventlog.replay(events, "sha384")
    assert {f"rtmr{number - 1}": value.hex() for number, value in registers.items()} == {
        name: says[name] for name in ("rtmr0", "rtmr1", "rtmr2")
    }
    kernel = next(one for one in events if one.data.startswith(b"kernel_cmdline: "))
    assert kernel.covered and kernel.text.startswith("kernel_cmdline: /syslinux/vmlinuz.A init=/usr/lib/systemd/systemd")
    assert "as the log says" in next(one.text for one in events if one.name == "EFI_HANDOFF_TABLES2")


def test_no_digest_of_the_log_can_change() -> None:
    log, quote = vector("ccel_data.dat.gz"), vector("cos-113-tdx-quote.dat")
    assert verify(quote, Known(at=AT, log=log)).of("expected").answer == "not judged"  # nothing to compare it with
    at = 0
    for event in eventlog.parse(log)[1:]:
        digest = event.digests["sha384"]
        at = log.index(digest, at)
        turned = bytearray(log)
        turned[at + 7] ^= 4
        assert verify(quote, Known(at=AT, log=bytes(turned))).of("expected").answer == "no"


def test_no_register_and_no_order_of_the_log_can_change() -> None:
    log, quote = vector("ccel_data.dat.gz"), vector("cos-113-tdx-quote.dat")
    events, at = eventlog.parse(log)[1:], 0
    for event in events:
        at = log.index(event.digests["sha384"], at)
        place = at - 14  # register, type, number of digests, hash function
        assert int.from_bytes(log[place : place + 4], "little") == event.register
        turned = bytearray(log)
        turned[place] ^= 1
        assert verify(quote, Known(at=AT, log=bytes(turned))).of("expected").answer == "no"
    from tinamou import late

    swapped = [late.replace(events[0], digests=events[1].digests), late.replace(events[1], digests=events[0].digests)]
    assert eventlog.replay([*swapped, *events[2:]], "sha384") != eventlog.replay(events, "sha384")


def test_words_their_digest_does_not_cover_are_marked() -> None:
    log = vector("ccel_data.dat.gz")
    told = log.replace(b"kernel_cmdline: /syslinux/vmlinuz.A", b"kernel_cmdline: /syslinux/vmlinuz.B")
    kernel = next(one for one in eventlog.parse(told) if one.data.startswith(b"kernel_cmdline: "))
    assert not kernel.covered and kernel.text.endswith("(as the log says)")


def test_what_is_no_log() -> None:
    log = vector("ccel_data.dat.gz")
    for broken in (b"", log[:20], log[:200], b"\xff" * 100, log[32:]):
        with pytest.raises(MalformedError):
            eventlog.parse(broken)


def genuine(quote: bytes, known: Known) -> str:
    try:
        return verify(quote, known).of("genuine").answer
    except MalformedError:
        return "no quote"


def flips(step: int) -> None:
    quote, known = vector("tdx_quote"), everything()
    end = len(quote) - 70  # the rest is behind it, and counts for nothing
    wrong = []
    for at in range(0, end, step):
        turned = bytearray(quote)
        turned[at] ^= 1 << at % 8
        if genuine(bytes(turned), known) == "yes":
            wrong.append(at)
    assert wrong == []


def test_few_bytes_of_a_quote_that_change() -> None:
    flips(29)


@pytest.mark.slow
def test_no_byte_of_a_quote_can_change() -> None:
    flips(1)


@pytest.mark.slow
def test_no_byte_of_a_quote_without_collateral_can_change() -> None:
    quote = vector("quote_v5_sample.dat")
    at = datetime(2026, 6, 1, tzinfo=UTC)
    assert verify(quote, Known(at=at)).of("genuine").evidence[-1] == "the enclave's key signed the quote"
    for place in range(len(quote)):
        turned = bytearray(quote)
        turned[place] ^= 1 << place % 8
        try:
            found = verify(bytes(turned), Known(at=at)).of("genuine")
        except MalformedError:
            continue
        assert found.answer == "no", place


def test_no_field_of_the_collateral_can_change() -> None:
    known, quote = everything(), vector("tdx_quote")
    data = json.loads(collateral())
    for name, value in data.items():
        for at in (len(value) // 3, len(value) // 2, len(value) * 2 // 3):
            if value[at].isspace() or value[at] in '{}[]",:':
                at += 1
            other = "0" if value[at] != "0" else "1"
            turned = json.dumps({**data, name: value[:at] + other + value[at + 1 :]})
            assert genuine(quote, changed(known, collateral=turned)) == "no", (name, at)


def test_collateral_nobody_signed_is_not_taken_for_one_without_a_level() -> None:
    """The library's errors quote what it has not judged yet."""
    data = json.loads(collateral())
    data["tcb_info"] = data["tcb_info"].replace("UpToDate", "TCB level")
    verdict = verify(vector("tdx_quote"), changed(everything(), collateral=json.dumps(data)))
    assert answers(verdict)["genuine"] == answers(verdict)["tcb"] == "no"


def test_registers_the_policy_accepts() -> None:
    """Those may be what the log gives, which must be there and give all of them; MRTD is never accepted so."""
    log, quote = vector("ccel_data.dat.gz"), vector("cos-113-tdx-quote.dat")
    says = verify(quote, Known(at=AT)).says
    policy = read_policy(b'accepted = ["rtmr0", "rtmr1", "rtmr2"]')
    known = Known(at=AT, log=log, policy=policy, measured={"mrtd": bytes.fromhex(says["mrtd"])})
    answer = verify(quote, known).of("expected")
    assert answer.answer == "yes" and "rtmr0 is what the log gives, which the policy accepts" in answer.evidence
    assert verify(quote, changed(known, log=b"")).of("expected").answer == "not judged"
    assert verify(quote, changed(known, policy=read_policy(b"accepted = ['rtmr0']"))).of("expected").answer == "not judged"
    assert verify(quote, changed(known, measured={})).of("expected").answer == "not judged"
    assert verify(quote, changed(known, measured={"mrtd": bytes(48)})).of("expected").answer == "no"
    turned = log.replace(eventlog.parse(log)[3].digests["sha384"], bytes(48))
    assert verify(quote, changed(known, log=turned)).of("expected").answer == "no"
    with pytest.raises(SpecError):
        read_policy(b'accepted = ["mrtd"]')


def test_what_a_quote_does_not_speak_of_is_no() -> None:
    known, quote = everything(), vector("tdx_quote")
    assert answers(verify(quote, changed(known, policy=read_policy(b"secure_boot = true"))))["policy"] == "no"
    assert answers(verify(quote, changed(known, key=bytes(34))))["genuine"] == "no"
    assert answers(verify(quote, changed(known, reference=b"x")))["expected"] == "no"

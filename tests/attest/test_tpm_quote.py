"""Quotes of real TPMs: of a machine that runs, judged by key, nonce and log; and everything that must be refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from typed import call, tinamou

from tinamou import late
from tinamou.attest import Known, MalformedError, Policy, Verdict, eventlog, tpm, verify

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)"),
]
POLICY = Policy(host_trusted=True)


def quoted(name: str, file: Path, nonce: str) -> tuple[bytes, bytes]:
    """A new quote, and the name of its key."""
    told = json.loads(tinamou("attest", "quote", name, "--nonce", nonce, "-o", str(file), "--json"))
    assert told["nonce"] == nonce and told["certified"].endswith("of this host") and told["made_for"] == name
    return file.read_bytes(), bytes.fromhex(told["key"])


def wrong(verdict: Verdict) -> dict[str, str]:
    return {one.question: one.answer for one in verdict.answers if one.answer != "yes"}


def test_a_machines_quote(leftovers, tmp_path: Path) -> None:
    tinamou("run", "-d", "--name", "measured", "--tpm")
    tinamou("run", "-d", "--name", "plain")
    try:
        first, key = quoted("measured", tmp_path / "first", "aa" * 32)
        again, same = quoted("measured", tmp_path / "again", "bb" * 20)
        refused = call("attest", "quote", "plain", "-o", str(tmp_path / "none"))
        assert refused.returncode == 116 and "/dev/tpm0" in refused.stderr and not (tmp_path / "none").exists()
        tinamou("exec", "measured", "--", "sh", "-c", "echo changed > /dev/null")
        extend = "80020000004100000182000000080000000940000009000000000000000001000b" + "a5" * 32
        words = "".join(f"\\x{extend[at : at + 2]}" for at in range(0, len(extend), 2))
        tinamou(
            "exec",
            "measured",
            "--",
            "sh",
            "-c",
            f"exec 3<>/dev/tpm0; printf '{words}' >&3; dd bs=4096 count=1 <&3 >/dev/null",
        )
        extended, _ = quoted("measured", tmp_path / "extended", "aa" * 32)
    finally:
        tinamou("rm", "--force", "measured", "plain")
    assert same == key
    known = Known(nonce=b"\xbb" * 20, key=key, reference=first, policy=POLICY)
    assert verify(again, known).proven
    assert wrong(verify(first, known)) == {"fresh": "no"}  # an old quote, shown again
    assert wrong(verify(again, late.replace(known, key=bytes(34)))) == {"genuine": "no"}  # another machine's
    assert wrong(verify(again, late.replace(known, key=b""))) == {"genuine": "not judged"}
    assert wrong(verify(again, late.replace(known, reference=b""))) == {"expected": "not judged"}
    assert wrong(verify(again, late.replace(known, policy=Policy()))) == {"tcb": "not judged"}
    assert wrong(verify(again, late.replace(known, policy=Policy(host_trusted=True, secure_boot=True)))) == {"policy": "no"}
    # what the guest measured without a log of it
    assert verify(extended, late.replace(known, nonce=b"\xaa" * 32)).of("expected").answer == "no"
    refuses_what_was_turned(tpm.parse(again), known)
    assert leftovers.found() == []


def refuses_what_was_turned(quote: tpm.TpmQuote, known: Known) -> None:
    """Each byte of what is signed, of the signature, the key; each digest of the log; words the log covers."""
    assert verify(quote.written(), known).proven
    for field in ("attest", "signature", "key"):
        value = getattr(quote, field)
        for at in range(len(value)):
            turned = bytes([*value[:at], value[at] ^ 1 << at % 8, *value[at + 1 :]])
            assert not verify(late.replace(quote, **{field: turned}).written(), known).proven, (field, at)
    for event in eventlog.parse(quote.log)[1:]:
        digest = event.digests["sha256"]
        log = quote.log.replace(digest, bytes([digest[0] ^ 1, *digest[1:]]), 1)
        assert verify(late.replace(quote, log=log).written(), known).of("expected").answer == "no"
    ima = bytearray(quote.ima)
    if ima:
        ima[-1] ^= 1
        assert verify(late.replace(quote, ima=bytes(ima)).written(), known).of("expected").answer == "no"
    for broken in (b'{"kind": "tinamou-tpm-quote-1"}', quote.written()[:-9], quote.written().replace(b"attest", b"attend")):
        with pytest.raises(MalformedError):
            verify(broken, known)


def again(name: str, file: Path, nonce: str, script: str = "") -> tuple[bytes, bytes]:
    """A quote of a machine that started anew, after a change from inside."""
    if script:
        tinamou("exec", name, "--", "sh", "-ec", script)
    tinamou("restart", name, "--timeout", "900")
    settled(name)
    return quoted(name, file, nonce)


def settled(name: str) -> None:
    """Nothing is started any more, so that the kernel has measured what it will; services that failed do not matter here."""
    call("exec", name, "--", "systemctl", "is-system-running", "--wait")


SAFE = ("debian", "-d", "--name", "safe", "--secure-boot", "--tpm", "--memory", "1G", "--timeout", "900")
DEMANDED = Policy(host_trusted=True, secure_boot=True)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_measured_boot_by_name_of_the_event(leftovers, tmp_path: Path) -> None:
    tinamou("run", *SAFE)
    tinamou("run", "-d", "--name", "another", "--tpm")
    try:
        settled("safe")
        first, key = quoted("safe", tmp_path / "first", "01" * 8)
        strange, _ = quoted("another", tmp_path / "strange", "02" * 8)
        same, _ = again("safe", tmp_path / "same", "02" * 8)
        longer = "for f in /boot/initrd.img-*; do dd if=/dev/zero bs=512 count=1 >> $f; done; sync"
        initrd, _ = again("safe", tmp_path / "initrd", "03" * 8, longer)
        words = "sed -i '/^[[:space:]]*linux[[:space:]]/s/$/ tinamou.changed=1/' /boot/grub/grub.cfg; sync"
        changed, _ = again("safe", tmp_path / "changed", "04" * 8, words)
        assert "tinamou.changed=1" in tinamou("exec", "safe", "--", "cat", "/proc/cmdline")
    finally:
        tinamou("rm", "--force", "safe", "another")
    known = Known(key=key, reference=first, policy=DEMANDED)

    def judged(quote: bytes, nonce: str) -> Verdict:
        return verify(quote, late.replace(known, nonce=bytes.fromhex(nonce) * 8))

    assert wrong(judged(same, "02")) == {}
    assert wrong(judged(first, "02")) == {"fresh": "no"}  # an old one, replayed
    assert judged(strange, "02").of("genuine").answer == "no"  # another machine's
    for quote, nonce, named in ((initrd, "03", "initrd.img"), (changed, "04", "tinamou.changed=1")):
        verdict = judged(quote, nonce)
        assert wrong(verdict) == {"expected": "no"}
        assert "IPL" in verdict.of("expected").why and named in verdict.of("expected").why
    assert leftovers.found() == []


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_secure_boot_switched_off(leftovers, tmp_path: Path) -> None:
    tinamou("run", *SAFE)
    try:
        settled("safe")
        first, key = quoted("safe", tmp_path / "first", "01" * 8)
        tinamou("stop", "safe")
        tinamou("set", "safe", "boot.secure=false", "boot.firmware=uefi")
        tinamou("start", "safe", "--timeout", "900")
        settled("safe")
        assert "Secure boot disabled" in tinamou("exec", "safe", "--", "dmesg")
        off, same = quoted("safe", tmp_path / "off", "02" * 8)
    finally:
        tinamou("rm", "--force", "safe")
    assert same == key
    known = Known(key=key, reference=first, policy=DEMANDED)
    assert wrong(verify(first, late.replace(known, nonce=b"\x01" * 8))) == {}
    verdict = verify(off, late.replace(known, nonce=b"\x02" * 8))
    assert wrong(verdict) == {"expected": "no", "policy": "no"}
    assert "no event of a firmware" in verdict.of("policy").why and "no event of a firmware" in verdict.of("expected").why
    assert "GRUB 2.06" in verdict.of("expected").fix
    assert leftovers.found() == []

"""Secrets that are released after a yes, and reports fetched through a guest: by files, and in a real machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from attest.amd import NONCE, NOW, Maker
from attest.test_sev import DIGEST, NUMBER, TIK, signed
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from typed import call, tinamou

from tinamou.attest import Known, MalformedError, Policy, jwe, read_policy, sev, tpm, verify
from tinamou.attest.certificates import ROOTS, pin
from tinamou.errors import GuestError, SpecError
from tinamou.operations import fetching, inside, releasing

SECRET = b"the key of the disk"


def test_a_secret_for_the_key_in_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our maker's root is unknown to the command, which runs in a process of its own: what it refuses is tried by it."""
    from tinamou.cli import attest_release

    milan, key = Maker(), ec.generate_private_key(ec.SECP256R1())
    monkeypatch.setitem(ROOTS, pin(milan.root), "a root of our own")
    pem = tmp_path / "guest.pem"
    pem.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    bound = hashlib.sha512(NONCE + jwe.spki(key.public_key())).digest()
    known = Known(
        nonce=NONCE, measured={"measurement": bytes(range(100, 148))}, certificates=milan.chain(), at=NOW,
        revoked=(milan.revoked(),), policy=read_policy(b"floor = {snp = 1}"),
    )  # fmt: skip
    verdict, sealed = attest_release._sealed(milan.report(data=bound), SECRET, known, pem, None)
    assert verdict.proven and isinstance(sealed, dict)
    joserfc = pytest.importorskip("joserfc")
    from joserfc import jwe as opening
    from joserfc.jwk import ECKey

    mine = ECKey.import_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert opening.decrypt_json(sealed, mine, algorithms=["ECDH-ES+A256KW", "A256GCM"]).plaintext == SECRET and joserfc
    assert not attest_release._sealed(milan.report(), SECRET, known, pem, None)[0].proven  # not bound to this key
    with pytest.raises(SpecError, match="could be anybody"):
        attest_release._sealed(milan.report(data=bound), SECRET, known, None, None)
    for broken in (b"", b"-----BEGIN PUBLIC KEY-----", b"\x30" * 99):
        with pytest.raises(MalformedError):
            jwe.from_pem(broken)
    (tmp_path / "report").write_bytes(milan.report(data=bound))
    (tmp_path / "secret").write_bytes(SECRET)
    out = tmp_path / "out"
    words = ("--guest-key", str(pem), "--nonce", NONCE.hex(), "-o", str(out))
    ran = call("attest", "secret", str(tmp_path / "report"), str(tmp_path / "secret"), *words)
    assert ran.returncode == 25 and "the secret was not released" in ran.stderr and not out.exists()


def test_a_secret_for_a_session_of_sev(tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(signed(0b1111).written())
    (tmp_path / "tik").write_bytes(TIK)
    (tmp_path / "tek").write_bytes(bytes(range(16)))
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "policy").write_text("floor = {build = 15}")
    words = ["attest", "secret", str(tmp_path / "report"), str(tmp_path / "secret"), "--tik", str(tmp_path / "tik")]
    words += ["--tek", str(tmp_path / "tek"), "--policy", str(tmp_path / "policy"), "--expect", DIGEST.hex()]
    ran = call(*words, "--nonce", NUMBER.hex(), "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    packet = json.loads((tmp_path / "report.secret").read_text())
    assert told["released"] is True and set(packet) == {"packet-header", "secret"}
    (tmp_path / "report.secret").unlink()
    ran = call(*words, "--nonce", "00" * 16, "--json")
    assert ran.returncode == 21 and json.loads(ran.stdout)["released"] is False
    assert not (tmp_path / "report.secret").exists()
    assert sev.parse((tmp_path / "report").read_bytes()).nonce == NUMBER


def local(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A shell of this host in place of a guest's, where a new folder of configfs has files that answer."""
    answering = folder / "bin/mkdir"
    answering.parent.mkdir(exist_ok=True)
    answering.write_text(FAKE_MKDIR)
    answering.chmod(0o755)
    (folder / "tsm/report").mkdir(parents=True, exist_ok=True)

    async def ran(name, command, out, err, *, input: AsyncIterator[bytes], **_) -> int:  # type: ignore[no-untyped-def]
        given = b"".join([piece async for piece in input])
        path = f"{answering.parent}:{os.environ['PATH']}"
        pipe = asyncio.subprocess.PIPE
        done = await asyncio.create_subprocess_exec(
            *command.argv, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, "PATH": path}
        )
        said, wrong = await done.communicate(given)
        out(said)
        err(wrong)
        assert done.returncode is not None
        return done.returncode

    monkeypatch.setattr(inside, "stream", ran)
    return folder


FAKE_MKDIR = r"""#!/bin/sh
# A folder of configfs: what is read from outblob is the bytes of inblob behind a word, once they are there.
/bin/mkdir "$@" || exit 1
for last; do :; done
root=${last%/tsm/report/*}
cp "$root/generation" "$last/generation" 2>/dev/null || echo 0 >"$last/generation"
cp "$root/provider" "$last/provider"
cp "$root/auxblob" "$last/auxblob" 2>/dev/null
mkfifo "$last/outblob"
(
    until [ -s "$last/inblob" ]; do sleep 0.05; done
    { printf report:; cat "$last/inblob"; } >"$last/outblob"
) >/dev/null 2>&1 </dev/null &
"""


def test_a_report_by_configfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = local(monkeypatch, tmp_path)
    (folder / "provider").write_text("sev_guest\n")
    vcek = bytes.fromhex("8d75da6364e66445adc5f4b93be8accd")
    (folder / "auxblob").write_bytes(vcek + (48).to_bytes(4, "little") + (3).to_bytes(4, "little") + bytes(24) + b"der")
    (folder / "acpi").mkdir()
    (folder / "acpi/CCEL").write_bytes(b"the log")

    def asked() -> fetching.Fetched:
        return asyncio.run(fetching.report_of("none", b"number", tsm=str(folder), acpi=str(folder / "acpi")))

    found = asked()
    assert found.provider == "sev_guest" and found.report == b"report:number" + bytes(58)
    assert found.certificates == {"vcek": b"der"} and found.log == b"the log"
    (folder / "provider").write_text("tdx_guest\n")
    assert asked().certificates == {}
    (folder / "provider").write_text("sev_guest\n")
    (folder / "auxblob").write_bytes(vcek + (48).to_bytes(4, "little") + (99).to_bytes(4, "little") + bytes(24))
    with pytest.raises(GuestError, match="points to 147"):
        asked()
    (folder / "provider").write_text("two words here\n")
    with pytest.raises(GuestError, match="neither who gave it"):
        asked()
    shutil.rmtree(folder / "tsm")
    with pytest.raises(GuestError, match="its kernel has no"):
        asked()


@pytest.mark.vm
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)")
def test_in_a_real_machine(leftovers, state: Path, tmp_path: Path) -> None:
    """A secret that only its TPM opens; and a guest whose kernel gives no reports, which says so."""
    tinamou("run", "-d", "--name", "kept", "--tpm")
    try:
        told = json.loads(tinamou("attest", "quote", "kept", "-o", str(tmp_path / "trusted"), "--json"))
        (tmp_path / "secret").write_bytes(bytes(range(100)))
        (tmp_path / "policy").write_text("host_trusted = true")
        words = ["attest", "secret", "kept", str(tmp_path / "secret"), "--to", "/run/key", "--key", told["key"]]
        words += ["--policy", str(tmp_path / "policy"), "--json"]
        refused = call(*words)
        assert refused.returncode == 25 and json.loads(refused.stdout)["released"] is False  # no start to compare it with
        absent = tinamou("exec", "kept", "--", "sh", "-c", "ls /run | grep key || echo none")
        ran = call(*words, "--reference", str(tmp_path / "trusted"))
        assert ran.returncode == 0 and json.loads(ran.stdout)["released"] is True, ran.stderr
        digest = tinamou(
            "exec", "kept", "--", "sh", "-c", "sha256sum < /run/key; stat -c %a /run/key; ls /run | grep -c key"
        )
        other = call(
            *[word if word != told["key"] else "00" * 34 for word in words], "--reference", str(tmp_path / "trusted")
        )
        unknown = call("attest", "fetch", "kept", "-o", str(tmp_path / "none"))
    finally:
        tinamou("rm", "--force", "kept")
    assert absent == "none\n" and other.returncode == 20
    assert digest.split() == [hashlib.sha256(bytes(range(100))).hexdigest(), "-", "600", "1"]
    assert unknown.returncode == 116 and "its kernel has no /sys/kernel/config/tsm/report" in unknown.stderr
    quote = tpm.parse((tmp_path / "trusted").read_bytes())
    known = Known(key=bytes.fromhex(told["key"]), policy=Policy(host_trusted=True), nonce=bytes.fromhex(told["nonce"]))
    assert verify(quote.written(), known).of("genuine").answer == "yes"
    with pytest.raises(SpecError):
        releasing.credentials(quote, bytes(1025))
    assert leftovers.found() == []

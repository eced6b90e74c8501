"""Secrets that are released after a yes, and reports fetched through a guest: by files, and in a real machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
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


def stand_in(folder: Path) -> None:
    """Programs that make a folder of configfs: attributes are there with it, and answer in the kernel's order."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in (("mkdir", MKDIR), ("rmdir", RMDIR)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)


def local(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A shell of this host in place of a guest's."""
    stand_in(folder)
    (folder / "tsm/report").mkdir(parents=True, exist_ok=True)

    async def ran(name, command, out, err, *, input: AsyncIterator[bytes], **_) -> int:  # type: ignore[no-untyped-def]
        given = b"".join([piece async for piece in input])
        path = f"{folder}/bin:{os.environ['PATH']}"
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


MKDIR = r"""#!/bin/sh
# What is read from outblob is what was written to inblob, behind a word; generation counts writes. Of the first so many
# reports as the file conflicts says, another writes while they are read.
/bin/mkdir "$@" || exit 1
for one; do :; done
case $one in */tsm/report/tinamou-*) ;; *) exit 0 ;; esac
root=${one%/tsm/report/*}
cp "$root/provider" "$one/provider"
mkfifo "$one/inblob" "$one/generation" "$one/outblob" "$one/auxblob"
(
    count=0
    while [ -d "$one" ]; do
        cat "$one/inblob" >"$one/.in"
        count=$((count + 1))
        echo $count >"$one/generation"
        { printf report:; cat "$one/.in"; } >"$one/outblob"
        cat "$root/auxblob" >"$one/auxblob"
        [ "$count" -gt "$((2 * $(cat "$root/conflicts")))" ] || count=$((count + 1))
        echo $count >"$one/generation"
    done
) >/dev/null 2>&1 </dev/null &
echo $! >"$one/.server"
"""
RMDIR = r"""#!/bin/sh
# The kernel's attributes go with their folder.
case $1 in */tsm/report/tinamou-*)
    server=$(cat "$1/.server")
    waits=$(pgrep -P "$server") # for somebody to open one
    kill "$server" $waits
    exec rm -rf "$1" ;;
esac
exec /bin/rmdir "$@"
"""
VCEK = bytes.fromhex("8d75da6364e66445adc5f4b93be8accd")


def table(length: int) -> bytes:
    """A host's table of certificates: one, which is said to be so long."""
    return VCEK + (48).to_bytes(4, "little") + length.to_bytes(4, "little") + bytes(24) + b"der"


def test_a_report_by_configfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = local(monkeypatch, tmp_path)
    (folder / "provider").write_text("sev_guest\n")
    (folder / "auxblob").write_bytes(table(3))
    (folder / "conflicts").write_text("0")
    (folder / "acpi").mkdir()
    (folder / "acpi/CCEL").write_bytes(b"the log")

    def asked(data: bytes = b"number") -> fetching.Fetched:
        return asyncio.run(report(folder, data))

    found = asked()
    assert found.provider == "sev_guest" and found.report == b"report:number" + bytes(58)
    assert found.certificates == {"vcek": b"der"} and found.log == b"the log"
    assert list((folder / "tsm/report").iterdir()) == []
    (folder / "conflicts").write_text("3")
    assert asked(b"again").report == b"report:again" + bytes(59)  # three times another wrote while it was read
    (folder / "conflicts").write_text("9")
    with pytest.raises(GuestError, match="none in five tries"):
        asked()
    (folder / "conflicts").write_text("0")
    both = asyncio.run(at_once(folder))
    assert [one.report[7:10] for one in both] == [b"one", b"two"] and list((folder / "tsm/report").iterdir()) == []
    (folder / "provider").write_text("tdx_guest\n")
    assert asked().certificates == {}
    (folder / "provider").write_text("sev_guest\n")
    (folder / "auxblob").write_bytes(table(99))
    with pytest.raises(GuestError, match="points to 147"):
        asked()
    (folder / "provider").write_text("two words here\n")
    with pytest.raises(GuestError, match="neither who gave it"):
        asked()
    shutil.rmtree(folder / "tsm")
    with pytest.raises(GuestError, match="its kernel has no"):
        asked()


async def report(folder: Path, data: bytes, name: str = "none") -> fetching.Fetched:
    return await fetching.report_of(name, data, tsm=str(folder), acpi=str(folder / "acpi"))


async def at_once(folder: Path, name: str = "none") -> tuple[fetching.Fetched, fetching.Fetched]:
    return await asyncio.gather(report(folder, b"one", name), report(folder, b"two", name))


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_report_of_a_debian_guest(leftovers, state: Path, tmp_path: Path) -> None:
    """By its agent, with nothing installed: its shell and its own programs, on folders as configfs-tsm makes them."""
    folder = Path("/usr/local/sbin/standin")
    (tmp_path / "standin").mkdir()
    stand_in(tmp_path / "standin")
    for name, data in (("provider", b"sev_guest\n"), ("auxblob", table(3)), ("conflicts", b"2")):
        (tmp_path / "standin" / name).write_bytes(data)
    tinamou("run", "debian", "-d", "--name", "asked", "--timeout", "900")
    try:
        refused = call("attest", "fetch", "asked", "-o", str(tmp_path / "none"))
        tinamou("cp", str(tmp_path / "standin"), "asked:/usr/local/sbin/")
        tinamou("exec", "asked", "--", "sh", "-ec", f"mv {folder}/bin/* /usr/local/sbin/; mkdir -p {folder}/tsm/report")
        both = asyncio.run(at_once(folder, "asked"))
        left = tinamou("exec", "asked", "--", "ls", f"{folder}/tsm/report")
    finally:
        tinamou("rm", "--force", "asked")
    assert refused.returncode == 116 and "its kernel has no /sys/kernel/config/tsm/report" in refused.stderr
    assert [one.report for one in both] == [b"report:one" + bytes(61), b"report:two" + bytes(61)] and left == ""
    assert both[0].certificates == {"vcek": b"der"}
    assert leftovers.found() == []


CRYPTSETUP = shutil.which("cryptsetup")


@pytest.mark.vm
@pytest.mark.timeout(400)
@pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)")
@pytest.mark.skipif(not CRYPTSETUP, reason="cryptsetup is not installed (cryptsetup-bin)")
def test_a_disk_whose_key_comes_after_a_yes(leftovers, state: Path, tmp_path: Path) -> None:
    """A disk encrypted here by LUKS is opened in the guest by a key that only a guest that was judged gets."""
    (tmp_path / "key").write_bytes(os.urandom(64))
    (tmp_path / "policy").write_text("host_trusted = true")
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(32 << 20))
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", str(tmp_path / "key"))
    subprocess.run([str(CRYPTSETUP), "luksFormat", "--batch-mode", "--type", "luks2", *cheap, str(disk)], check=True)
    tinamou("run", "-d", "--name", "locked", "--tpm", "--disk", str(disk))
    try:
        told = json.loads(tinamou("attest", "quote", "locked", "-o", str(tmp_path / "trusted"), "--json"))
        carried(tmp_path)
        tinamou("exec", "locked", "--", "modprobe", "-a", "dm_crypt", "xts")
        opening = f"{OPEN} open --key-file /run/key /dev/vda secret 2>&1"
        before = call("exec", "locked", "--", "sh", "-c", opening)
        words = [
            "attest",
            "secret",
            "locked",
            str(tmp_path / "key"),
            "--to",
            "/run/key",
            "--policy",
            str(tmp_path / "policy"),
        ]
        refused = call(*words, "--key", "00" * 34, "--reference", str(tmp_path / "trusted"))
        still = call("exec", "locked", "--", "sh", "-c", opening)
        tinamou(*words, "--key", told["key"], "--reference", str(tmp_path / "trusted"))
        used = "echo what is mine | dd of=/dev/mapper/secret conv=fsync 2>/dev/null"
        tinamou("exec", "locked", "--", "sh", "-ec", f"{opening} && rm /run/key && {used}")
        read = tinamou("exec", "locked", "--", "sh", "-c", "dd if=/dev/mapper/secret bs=12 count=1 2>/dev/null")
    finally:
        tinamou("rm", "--force", "locked")
    assert before.returncode != 0 and still.returncode != 0 and refused.returncode == 20
    assert read == "what is mine" and b"what is mine" not in disk.read_bytes()
    assert leftovers.found() == []


LIBRARIES = "/run/libraries"
OPEN = f"{LIBRARIES}/ld-linux-x86-64.so.2 --library-path {LIBRARIES} {LIBRARIES}/cryptsetup"


def carried(folder: Path) -> None:
    """This host's cryptsetup into the guest, with its libraries: the tiny guest has none."""
    into = folder / "libraries"
    into.mkdir()
    linked = subprocess.run(["ldd", str(CRYPTSETUP)], capture_output=True, text=True, check=True).stdout
    for path in (str(CRYPTSETUP), *re.findall(r"(/\S+) \(0x", linked)):
        shutil.copy(path, into)
    tinamou("cp", str(into), "locked:/run/")


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
    assert (
        unknown.returncode == 116 and "/sys/kernel/config/tsm/report" in unknown.stderr
    )  # it has none, or no processor for it
    quote = tpm.parse((tmp_path / "trusted").read_bytes())
    known = Known(key=bytes.fromhex(told["key"]), policy=Policy(host_trusted=True), nonce=bytes.fromhex(told["nonce"]))
    assert verify(quote.written(), known).of("genuine").answer == "yes"
    with pytest.raises(SpecError):
        releasing.credentials(quote, bytes(1025))
    assert leftovers.found() == []

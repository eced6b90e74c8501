"""Sessions of SEV: known answers, a platform's chain and each byte of it, and a guest held until its owner says yes."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("sevsnpmeasure")

from attest import made_ovmf, psp, sev_qemu
from attest.sev_maker import Platform
from attest.vectors import vector
from confidential_cases import AMDSEV, FIRMWARE, HOSTS, Case, facts, image_of, spec_of
from recorded import VERSIONS, accel
from typed import call, tinamou

from tinamou.attest import Known, MalformedError, certificates, make_session, measured_by, read_policy, sev, sev_chain
from tinamou.attest.session import wrapped
from tinamou.cli import attest_given, attest_guest, attest_release, attest_session
from tinamou.cli.attest_given import Given
from tinamou.errors import ControlError, PlanError, SpecError, StateError
from tinamou.machine import gather, life
from tinamou.machine.booting import started, until_up
from tinamou.machine.connected import Connected
from tinamou.operations import launching, machines
from tinamou.parts.confidential import ConfidentialSpec
from tinamou.planner import plan
from tinamou.probe.qemu import probe_qemu
from tinamou.spec import MachineSpec, load_spec
from tinamou.state.machines import find
from tinamou.tuning import confidential as choosing
from tinamou.tuning import walls

NOTHING = bytes(16)


def test_known_answers_of_a_session() -> None:
    """Of virtee/sev (src/session/mod.rs), all of whose inputs are zero."""
    found = wrapped(NOTHING, NOTHING, NOTHING, 0, NOTHING, NOTHING)
    assert found[:16] == found[48:64] == NOTHING and len(found) == 128
    assert found[16:48].hex() == "2137bc7f9bb8bd7c3e55a576a15d3454b3856b8ba27afadf46dcfee9f02c02c4"
    assert found[64:96].hex() == "3176c0752738bd9d5e86689534020f528c088f16238826b000b327dee6aeed7d"
    assert found[96:].hex() == "aa7855e13839dd767cd5da7c1ff5036540c9264b7a803029315e55375287b4af"


def test_the_processor_of_the_tests_computes_as_the_standards_say() -> None:
    """FIPS 197, appendix C.1; SP 800-38A, F.5.1; and P-384's order."""
    key = bytes(range(16))
    assert psp.aes(key, bytes(at * 17 for at in range(16))).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"
    key, iv = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), bytes(range(0xF0, 0x100))
    said = psp.counted(key, iv, bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a57"))
    assert said.hex() == "874d6191b620e3261bef6864990db6ce9806f66b"
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
    assert psp.times(order, psp.BASE) is None


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose root is known here."""
    made = Platform()
    monkeypatch.setitem(certificates.ROOTS, made.pin, "a root of our own")
    return made


def test_a_session_that_its_processor_alone_unwraps(platform: Platform) -> None:
    known = sev_chain.parse_platform(platform.chain())
    assert sev_chain.check_platform(known)[0] == "ARK is a root of our own"
    made = make_session(known, 0xF)
    processor = psp.Psp(platform.private)
    processor.launch_start(0xF, made.dh_cert, made.blob)
    assert (processor.tek, processor.tik) == (made.tek, made.tik)
    with pytest.raises(ValueError, match="another policy"):
        processor.launch_start(0xE, made.dh_cert, made.blob)
    with pytest.raises(ValueError, match="another processor"):
        psp.Psp(7).launch_start(0xF, made.dh_cert, made.blob)
    again = make_session(known, 0xF)
    assert again.blob != made.blob and again.dh_cert != made.dh_cert


def test_no_byte_of_a_chain_can_change(platform: Platform) -> None:
    """Each byte of every certificate but those nothing signs: AMD's signature of itself, and places for others'."""
    whole = platform.chain()
    free = platform.unsigned()
    for at in range(0, len(whole)):
        if at % 7 and at % 2084 > 200:  # each byte of heads and keys, and one of seven of what is long
            continue
        turned = bytes([*whole[:at], whole[at] ^ 1 << at % 8, *whole[at + 1 :]])
        try:
            sev_chain.check_platform(sev_chain.parse_platform(turned))
        except (MalformedError, certificates.UntrustedError):
            assert at not in free, at
        else:
            assert at in free, at


def test_what_is_no_chain(platform: Platform) -> None:
    whole = platform.chain()
    broken = [b"", whole[:-700], whole[2084:], whole + whole[:2084], bytes(3000), whole[:12]]
    for one in broken:
        with pytest.raises(MalformedError):
            sev_chain.parse_platform(one)
    with pytest.raises(certificates.UntrustedError, match="no root known here"):
        sev_chain.check_platform(sev_chain.parse_platform(Platform().chain()))
    unsigned = platform.chain(cek_signed=False)
    with pytest.raises(certificates.UntrustedError, match="CEK was not signed by ASK"):
        sev_chain.check_platform(sev_chain.parse_platform(unsigned))


@pytest.mark.parametrize("name", ["naples", "rome"])
def test_chains_of_real_processors(name: str) -> None:
    """Of virtee/sev's tests: what the first two generations of EPYC said of themselves."""
    data = b"".join(vector(f"sev-{name}-{one}.cert") for one in ("pdh", "pek", "oca", "cek", "ask", "ark"))
    assert name.capitalize() in sev_chain.check_platform(sev_chain.parse_platform(data))[0]
    assert len(make_session(sev_chain.parse_platform(data), 0xF).blob) == 128
    short = sev_chain.parse_platform(data[:-256] if name == "naples" else data)  # as AMD's own file of it is
    assert sev_chain.check_platform(short)


@pytest.fixture
def host(platform: Platform, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with SEV for all that this process asks of it; QEMU computes nothing, firmware says it checks kernels."""
    fake, firmware = open_folder / "qemu-system-x86_64", open_folder / "OVMF.amdsev.fd"
    fake.write_text(sev_qemu.script(platform.private))
    fake.chmod(0o755)
    firmware.write_bytes(made_ovmf.image())
    monkeypatch.setenv("TINAMOU_QEMU", str(fake))
    known = dataclasses.replace(HOSTS["epyc-7003"], hashing=frozenset({str(firmware)}), opens=True)
    ours = tuple(
        dataclasses.replace(one, executable=str(firmware) if one.executable == AMDSEV else one.executable)
        for one in FIRMWARE
    )
    here = gather.probe_host()
    devices = here.devices | {"/dev/kvm", "/dev/null"}  # the secure processor's device is one that QEMU's walls can show
    groups = {**here.device_groups, "/dev/kvm": 104, "/dev/null": 105}
    for module in (choosing, walls):
        monkeypatch.setattr(module, "DEVICE", "/dev/null")
    monkeypatch.setattr(gather, "_encryption", lambda *_: known)
    monkeypatch.setattr(gather, "probe_firmware", lambda **_: dataclasses.make_dataclass("Found", ["firmware"])(ours))
    monkeypatch.setattr(gather, "probe_host", lambda: dataclasses.replace(here, devices=devices, device_groups=groups))
    monkeypatch.setattr(gather, "probe_accel", lambda _: accel("kvm-needs", "x86_64"))
    assert probe_qemu(str(fake)).has("type:sev-guest")
    return open_folder


SECRET = b"the passphrase of the guest's disk"


def described(name: str, session: Path) -> MachineSpec:
    """A machine with the session in a file that attest session wrote."""
    said = tomllib.loads(session.read_text())["confidential"]
    plain = {"name": name, "image": "tiny", "net": ["user"], "memory": {"size": "128M"}, "confidential": said}
    return load_spec(plain)


def got(name: str) -> bytes:
    """What the processor put into the guest."""

    async def asked() -> object:
        async with Connected.visiting(find(name)) as machine:
            return await (await machine.session()).execute("human-monitor-command", {"command-line": "info"})

    return bytes.fromhex(str(asyncio.run(asked())))


def state(name: str) -> str:
    return asyncio.run(life.state_of(find(name)))


@pytest.mark.vm
@pytest.mark.timeout(300)
def test_a_guest_is_held_until_its_owner_says_yes(host: Path, platform: Platform, leftovers, tmp_path: Path) -> None:
    """Session, plan, walls, monitor, judgement, secret: all real but the processor, which is another implementation."""
    (tmp_path / "chain").write_bytes(platform.chain())
    attest_session.session(tmp_path / "chain", kind="sev", out=tmp_path / "mine")
    assert (tmp_path / "mine.tik").stat().st_mode & 0o777 == 0o600
    with pytest.raises(SpecError, match="no session can be made"):
        attest_session.session(tmp_path / "chain", kind="sev", out=tmp_path / "mine")  # keys are not written over
    tik, tek = ((tmp_path / f"mine.{name}").read_bytes() for name in ("tik", "tek"))
    launched = asyncio.run(machines.launch(described("owned", tmp_path / "mine.toml")))
    try:
        assert "its owner" in launched.waits and any("is held until" in one.text for one in launched.notes)
        assert state("owned") == "prelaunch"
        with pytest.raises(StateError, match="is not resumed"):
            asyncio.run(machines.resume("owned"))
        measured = measured_by(attest_given.launch_named("owned"))
        known = Known(tik=tik, measured=measured, policy=read_policy(b"floor = {build = 24}"))
        verdict = asyncio.run(
            launching.give("owned", SECRET, tek, dataclasses.replace(known, measured={"measurement": bytes(32)}))
        )
        assert verdict.of("expected").answer == "no" and state("owned") == "prelaunch" and got("owned") == b""
        with pytest.raises(ControlError, match="for another start"):
            asyncio.run(launching.let_run("owned", sev.secret_packet(tek, tik, bytes(32), SECRET).plain()))
        assert state("owned") == "prelaunch"
        verdict = asyncio.run(launching.give("owned", SECRET, tek, known))
        assert verdict.proven and state("owned") == "running"
        assert SECRET in got("owned") and got("owned")[:16].hex() == "42f5741edd71664d963eef4287ff173b"
        with pytest.raises(ControlError, match="cannot be judged"):
            asyncio.run(launching.measurement_of("owned"))
        asyncio.run(machines.kill("owned"))
        from_afar(tmp_path, measured["measurement"])
        with pytest.raises(StateError, match="is not waited for"):  # each door that waits for the guest
            asyncio.run(waited_for(described("awaited", tmp_path / "mine.toml")))
    finally:
        tinamou("rm", "--force", "owned")
    assert leftovers.found() == []


def from_afar(folder: Path, digest: bytes) -> None:
    """The owner elsewhere: the host sends a file and gets one, and judges nothing. Stopped before that, it never ran."""
    asyncio.run(machines.start("owned"))
    assert state("owned") == "prelaunch" and asyncio.run(machines.stop("owned", grace=60))
    asyncio.run(machines.start("owned"))
    attest_guest.fetch("owned", out=folder / "owned.report")
    number = sev.parse((folder / "owned.report").read_bytes()).nonce
    (folder / "secret").write_bytes(SECRET)
    (folder / "policy").write_text("floor = {build = 24}")
    words = ["attest", "secret", str(folder / "owned.report"), str(folder / "secret"), "--nonce", number.hex()]
    words += ["--tik", str(folder / "mine.tik"), "--tek", str(folder / "mine.tek")]
    ran = call(*words, "--policy", str(folder / "policy"), "--expect", digest.hex())
    assert ran.returncode == 0, ran.stderr
    with pytest.raises(SpecError, match="no packet"):
        attest_session.launch("owned", folder / "policy")
    attest_session.launch("owned", folder / "owned.report.secret")
    assert state("owned") == "running" and SECRET in got("owned")
    asyncio.run(machines.kill("owned"))
    in_one_step(folder)


def in_one_step(folder: Path) -> None:
    """By the command on the host, with what it is judged by: refused without the session's keys, and by exit status."""
    asyncio.run(machines.start("owned"))
    given = Given(tik=folder / "mine.tik", machine="owned", policy=folder / "policy")
    for more in ({"tek": None}, {"tek": folder / "policy"}):
        with pytest.raises(SpecError, match="is not released"):
            attest_release.secret("owned", folder / "secret", given=given, **more)
    with pytest.raises(SpecError, match="nonce"):
        attest_guest.fetch("owned", nonce="00")
    strange = dataclasses.replace(given, machine="", expect="00" * 32)
    for told, ended in ((strange, 20), (given, 0)):
        with pytest.raises(SystemExit) as status:
            attest_release.secret("owned", folder / "secret", tek=folder / "mine.tek", given=told)
        assert status.value.code == ended and (state("owned") == "running") == (not ended)
    assert SECRET in got("owned")


async def waited_for(spec: MachineSpec) -> None:
    async with started(spec) as machine:
        await until_up(machine)


def test_a_session_is_refused_where_it_cannot_stand() -> None:
    """By name: with another kind, without its other half, of another length, and what is no machine with one."""
    session = {"dh_cert": base64.b64encode(bytes(2084)).decode(), "session": base64.b64encode(bytes(128)).decode()}
    for said, word in (
        ({"type": "off", **session}, "nothing is encrypted"),
        ({"type": "sev", "session": session["session"]}, "go together"),
        ({"type": "sev", **session, "session": "AAAA"}, "128 bytes"),
        ({"type": "sev", **session, "dh_cert": "?"}, "2084 bytes"),
    ):
        with pytest.raises(SpecError) as told:
            load_spec({"confidential": said})
        assert any(word in one.reason for one in told.value.problems)
    for kind, host in (("sev-snp", "epyc-7003"), ("tdx", "xeon")):
        case = Case(kind, "direct", host, VERSIONS[-1])
        spec = dataclasses.replace(spec_of(case), confidential=ConfidentialSpec(type=kind, **session))  # type: ignore[arg-type]
        with pytest.raises(PlanError, match=r"confidential\.session.*knows nothing of the kind"):
            plan(spec, facts(case, image_of(case)))
    with pytest.raises(StateError):
        asyncio.run(launching.measurement_of("nobody"))

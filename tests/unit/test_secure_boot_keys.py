"""Keys of the user's own for Secure Boot, and what is said of those that are enrolled."""

import dataclasses
import os
import random
import shutil
import struct
from pathlib import Path

import pytest
from made_facts import DEBIAN, OVMF, facts
from test_planner import SECURE

from tinamou.blueprint import CopyFile, EnrollKeys
from tinamou.errors import PlanError, PrepareError, ProbeError, SpecError
from tinamou.facts.keys import MICROSOFT, Certificate, KeyFacts
from tinamou.planner import plan
from tinamou.prepare import secure_boot
from tinamou.prepare.secure_boot import make_keys
from tinamou.probe.keys import of_store, probe_keys
from tinamou.spec import load_spec

EMPTY = dataclasses.replace(
    SECURE, executable="/code.secboot.fd", template="/vars.fd", features=frozenset({"requires-smm", "secure-boot"})
)
OWN = tuple(Certificate(name, f"our {name}", "2036-01-01", "ab" * 32, f"/keys/{name}.pem") for name in ("PK", "KEK", "db"))
UEFI_2011 = "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507"
WITH_MICROSOFT = Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")


def planned(keys=KeyFacts(own=OWN), firmware=(OVMF, SECURE, EMPTY), tools=("virt-fw-vars",), **boot):  # noqa: B008
    seen = facts(DEBIAN)
    host = dataclasses.replace(seen.host, tools=dict.fromkeys(tools, "/usr/bin/it"))
    seen = dataclasses.replace(seen, firmware=firmware, host=host, keys=keys)
    return plan(load_spec({"boot": {"secure_keys": "/keys", **boot}}), seen)


def test_own_keys_go_into_an_empty_store():
    made = planned()
    (step,) = [step for step in made.steps if isinstance(step, EnrollKeys)]
    assert step.template == "/vars.fd"
    assert step.keys == (("PK", "/keys/PK.pem"), ("KEK", "/keys/KEK.pem"), ("db", "/keys/db.pem"))
    assert "db our db (sha256 abababababababab…), ends 2036-01-01" in step.why.reason
    assert any(flag.options.get("property") == "secure" for flag in made.flags if flag.name == "global")
    assert not any(isinstance(step, CopyFile) for step in made.steps)


def test_what_is_enrolled_already_is_said():
    known = Certificate("db", *MICROSOFT[UEFI_2011], UEFI_2011)
    made = planned(KeyFacts({SECURE.template: (known,)}), secure=True, secure_keys="")
    (step,) = [step for step in made.steps if isinstance(step, CopyFile)]
    assert step.why.reason.endswith("it trusts db Microsoft UEFI CA 2011, ends 2026-06-27")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tools": ()}, "virt-fw-vars"),
        ({"keys": KeyFacts(fault="there is no PK")}, "there is no PK"),
        ({"firmware": (OVMF, SECURE)}, "empty store"),
        ({"firmware": (dataclasses.replace(EMPTY, format="qcow2"),)}, "not of a form"),
    ],
)
def test_refused(change, reason):
    with pytest.raises(PlanError) as error:
        planned(**change)
    (problem,) = error.value.problems
    assert problem.path == "boot.secure_keys"
    assert reason in problem.reason
    assert problem.fix


def test_beside_what_checks_nothing():
    with pytest.raises(SpecError) as error:
        load_spec({"boot": {"secure_keys": "/keys", "firmware": "bios"}})
    assert error.value.problems[0].path == "boot.secure_keys"


@pytest.fixture
def keys(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


def test_keys_we_make(keys):
    assert keys.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in keys.glob("*.key")] == [0o600] * 3
    found = probe_keys(str(keys), ())
    assert found.fault == ""
    assert sorted((one.variable, Path(one.file).name) for one in found.own) == [
        ("KEK", "KEK.pem"), ("PK", "PK.pem"), ("db", "db.pem"),
    ]  # fmt: skip
    assert all("tinamou" in one.name and one.ends > "2030" and len(one.fingerprint) == 64 for one in found.own)
    with pytest.raises(PrepareError, match="is there already"):
        make_keys(keys)


def test_a_folder_that_lacks_something(keys):
    (keys / "db-more.crt").write_bytes((keys / "db.pem").read_bytes())
    assert len(probe_keys(str(keys), ()).own) == 4
    (keys / "dbx.der").write_bytes(b"0")
    assert "dbx" in probe_keys(str(keys), ()).fault
    (keys / "dbx.der").unlink()
    (keys / "PK-2.pem").write_bytes((keys / "PK.pem").read_bytes())
    assert "2 certificates named PK" in probe_keys(str(keys), ()).fault
    (keys / "PK-2.pem").unlink()
    (keys / "PK.pem").write_text("nothing")
    assert "is no certificate" in probe_keys(str(keys), ()).fault
    (keys / "PK.pem").unlink()
    assert "0 certificates named PK" in probe_keys(str(keys), ()).fault
    assert "No such file" in probe_keys("/nosuch", ()).fault


@pytest.mark.skipif(not WITH_MICROSOFT.exists(), reason="ovmf is not installed")
def test_the_distributions_own_store():
    found = of_store(WITH_MICROSOFT, None)
    assert {one.variable for one in found} == {"PK", "KEK", "db"}
    assert "Microsoft UEFI CA 2011" in {one.name for one in found if one.fingerprint in MICROSOFT and one.variable == "db"}
    empty = WITH_MICROSOFT.with_name("OVMF_VARS_4M.fd")
    assert of_store(empty, None) == ()


@pytest.mark.skipif(not WITH_MICROSOFT.exists(), reason="ovmf is not installed")
def test_a_store_a_guest_has_written(tmp_path):
    """Sizes that lie, a file cut off, somebody else's file: an error or fewer certificates, at once."""
    sound, chance = WITH_MICROSOFT.read_bytes(), random.Random(1)
    path = tmp_path / "vars.fd"
    begin = sound.index(bytes.fromhex("78 2c f3 aa 7b 94 9a 43 a1 80 2e 14 4e c3 77 92"))
    for number in range(60):
        damaged = bytearray(sound)
        for _ in range(20):
            struct.pack_into("<I", damaged, begin + chance.randrange(12000), chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)))
        path.write_bytes(damaged[: chance.randrange(len(damaged))] if number % 3 == 0 else damaged)
        try:
            assert len(of_store(path, None)) <= 64
        except ProbeError as error:
            assert error.why
    path.write_bytes(b"")
    with pytest.raises(ProbeError):
        of_store(path, None)
    with pytest.raises(ProbeError):
        of_store(path, {os.geteuid() + 1})


def test_a_making_that_is_cut_short_leaves_no_part_of_the_keys(tmp_path, monkeypatch):
    made = []

    def run(words):
        made.append(words)
        if len(made) == 2:
            raise KeyboardInterrupt
        Path(words[words.index("-keyout") + 1]).touch()

    monkeypatch.setattr(secure_boot, "run", run)
    with pytest.raises(KeyboardInterrupt):
        make_keys(tmp_path / "keys")
    assert not (tmp_path / "keys").exists()

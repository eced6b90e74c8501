"""`tinamou attest`: exit statuses by answer, JSON, files that are not what they should be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

pytest.importorskip("dcap_qvl")

from attest.vectors import MISSING, VECTORS
from typed import call

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason=MISSING)
AT = ("--at", "2025-06-19T12:00")


def verify(*words: str | Path) -> tuple[int, dict[str, object]]:
    ran = call("attest", "verify", *map(str, words), "--json")
    return ran.returncode, json.loads(ran.stdout)


def test_statuses(tmp_path: Path) -> None:
    quote = (VECTORS / "tdx_quote", "--collateral", VECTORS / "tdx_quote_collateral.json", *AT)
    status, told = verify(*quote)
    assert status == 25 and told["proven"] is False
    says = told["says"]
    assert isinstance(says, dict)
    expect = tmp_path / "expect.toml"
    expect.write_text("".join(f'{name} = "{says[name]}"\n' for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2")))
    nonce = ("--nonce", str(says["report data"]))
    status, told = verify(*quote, *nonce, "--expect", expect)
    assert (status, told["proven"]) == (0, True)
    answers = told["answers"]
    assert isinstance(answers, dict) and list(answers) == ["genuine", "fresh", "expected", "policy", "tcb"]
    assert answers["tcb"] == {"answer": "yes", "evidence": ["Intel says UpToDate"], "why": "", "fix": ""}
    assert verify(*quote, "--nonce", "00", "--expect", expect)[0] == 21
    assert verify(*quote, *nonce, "--expect", "0" * 96)[0] == 22
    assert verify(*quote[:3], *nonce, "--at", "2030-01-01")[0] == 20
    policy = tmp_path / "policy.toml"
    policy.write_text('statuses = ["OutOfDate"]\n')
    assert verify(*quote, *nonce, "--expect", expect, "--policy", policy)[0] == 24


def test_amds_report(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    certs.mkdir()
    for name in ("vcek.testcer", "milan.testcer"):
        (certs / name).write_bytes((VECTORS / name).read_bytes())
    status, told = verify(VECTORS / "attestation.bin", "--certs", certs, *AT)
    assert status == 23 and told["kind"] == "sev-snp"  # its policy allows debugging
    (certs / "notes.txt").write_text("nothing of the kind")
    ran = call("attest", "verify", str(VECTORS / "attestation.bin"), "--certs", str(certs))
    assert ran.returncode == 110 and "notes.txt" in ran.stderr and "neither a certificate" in ran.stderr


def test_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    report = str(VECTORS / "attestation.bin")
    ran = call(
        "attest", "verify", report, "--nonce", "xyz", "--at", "noon", "--expect", "12", "--policy", str(tmp_path / "none")
    )
    assert ran.returncode == 110
    for word in ("nonce = 'xyz'", "at = 'noon'", "expect = '12'", "policy = "):
        assert word in ran.stderr
    ran = call("attest", "verify", str(VECTORS / "nonce.dat"))
    assert ran.returncode == 110 and "neither a report of SEV-SNP nor a quote of TDX" in ran.stderr


def test_the_log(tmp_path: Path) -> None:
    log = tmp_path / "CCEL"
    log.write_bytes(gzip.decompress((VECTORS / "ccel_data.dat.gz").read_bytes()))
    ran = call("attest", "log", str(log), "--json")
    told = json.loads(ran.stdout)
    assert len(told["events"]) == 44 and told["registers"]["sha384"]["1"].startswith("3fa2f61f")
    assert "kernel_cmdline: /syslinux/vmlinuz.A" in call("attest", "log", str(log)).stdout
    log.write_bytes(b"no log")
    assert call("attest", "log", str(log)).returncode == 110


def test_what_must_be_measured(tmp_path: Path) -> None:
    ran = call("attest", "expect", "--cpu", "EPYC-Milan")
    assert ran.returncode == 110 and "name a machine, or its files" in ran.stderr
    firmware = tmp_path / "firmware"
    firmware.write_bytes(bytes(4096))
    ran = call("attest", "expect", "--cpu", "486", "--firmware", str(firmware))
    assert ran.returncode == 110 and "EPYC-Milan" in ran.stderr
    ran = call("attest", "expect", "--cpu", "EPYC-Milan", "--firmware", str(firmware))
    assert ran.returncode == 110 and "OvmfPkg/AmdSev" in ran.stderr

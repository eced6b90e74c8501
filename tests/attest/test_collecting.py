"""Certificates and collateral fetched from a stand-in by HTTPS: kept where they lead to a root known here, else not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("cryptography")

from attest.amd import NONCE, Maker
from attest.served import Answers, by_https
from attest.vectors import vector
from cryptography.hazmat.primitives.serialization import Encoding
from typed import call

from tinamou.attest import Known, read_policy, verify
from tinamou.attest.certificates import ROOTS, pin
from tinamou.errors import SpecError
from tinamou.operations import collecting


def amds(maker: Maker, leaf: bytes | None = None) -> Answers:
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in (maker.middle, maker.root))
    found = leaf or maker.leaf().public_bytes(Encoding.DER)
    return {
        "/vcek/v1/Milan/cert_chain": (chain, {}),
        "/vcek/v1/Milan/crl": (maker.revoked(until=datetime(2100, 1, 1, tzinfo=UTC)), {}),
        "/vcek/v1/Milan/": (found, {}),
    }


@pytest.fixture
def milan(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """Its certificates hold for ten years from a day in the past."""
    maker = Maker()
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(ROOTS, pin(maker.root), "a root of our own")
    return maker


def collect(report: bytes, base: str) -> collecting.Collected:
    return collecting.collect(report, amd=base, intel=base)


def test_amds_are_kept_and_used_offline(milan: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = milan.report()
    with by_https(amds(milan), tmp_path) as (base, asked):
        with pytest.raises(SpecError, match="nothing could be fetched"):
            collect(report, base)  # the stand-in's authority is nobody's
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "standin.pem"))
        found = collect(report, base)
        assert collect(report, base) == found, "asked again, it is got again"
    assert any(one.endswith("?blSPL=03&teeSPL=01&snpSPL=14&ucodeSPL=209") for one in asked)
    folder = found.certificates
    assert folder is not None and folder.stat().st_mode & 0o777 == 0o700 and folder.parent.stat().st_mode & 0o077 == 0
    from tinamou.attest import certificates_in

    certificates, revoked = certificates_in(folder)
    told = Known(nonce=NONCE, certificates=certificates, revoked=revoked, policy=read_policy(b"floor = {snp = 1}"))
    assert verify(report, told).of("genuine").answer == "yes"
    from tinamou.cli.attest_given import Given
    from tinamou.cli.attest_shown import with_collected

    assert with_collected(Given(), report).certs == folder
    assert with_collected(Given(certs=tmp_path), report).certs == tmp_path
    assert with_collected(Given(), Maker(levels=bytes(8)).report()).certs is None


def test_what_leads_to_no_root_is_not_kept(milan: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forger, report = Maker(), milan.report()
    mixed = {**amds(milan), "/vcek/v1/Milan/": (forger.leaf().public_bytes(Encoding.DER), {})}
    for answers in (amds(forger), mixed, {}, {**amds(milan), "/vcek/v1/Milan/crl": (b"none", {})}):
        with by_https(answers, tmp_path) as (base, _):
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "standin.pem"))
            with pytest.raises(SpecError):
                collect(report, base)
    assert not (tmp_path / "cache/attest").exists()
    with pytest.raises(SpecError, match="no certificates"):
        collect(milan.report(version=2), "https://127.0.0.1:1")  # which processor it is of it does not say


def intels() -> Answers:
    told = json.loads(vector("tdx_quote_collateral.json"))

    def signed(name: str, kind: str) -> bytes:
        return f'{{"{kind}":{told[name]},"signature":"{told[name + "_signature"]}"}}'.encode()

    def chain(name: str, header: str) -> dict[str, str]:
        return {header: quote(told[name])}

    identity = chain("qe_identity_issuer_chain", "SGX-Enclave-Identity-Issuer-Chain")
    return {
        "/sgx/certification/v4/pckcrl": (
            bytes.fromhex(told["pck_crl"]), chain("pck_crl_issuer_chain", "SGX-PCK-CRL-Issuer-Chain"),
        ),
        "/sgx/certification/v4/rootcacrl": (told["root_ca_crl"].encode(), {}),
        "/tdx/certification/v4/tcb": (
            signed("tcb_info", "tcbInfo"), chain("tcb_info_issuer_chain", "TCB-Info-Issuer-Chain"),
        ),
        "/tdx/certification/v4/qe/identity": (signed("qe_identity", "enclaveIdentity"), identity),
    }  # fmt: skip


def test_intels_collateral(milan: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dcap_qvl")
    report, at = vector("tdx_quote"), datetime(2025, 6, 19, 12, tzinfo=UTC)
    monkeypatch.setattr(collecting, "_now", lambda: at)
    with by_https(intels(), tmp_path) as (base, _):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "standin.pem"))
        found = collect(report, base)
    assert found.collateral is not None
    assert verify(report, Known(collateral=found.collateral.read_text(), at=at)).of("tcb").answer == "yes"
    forged = intels()
    body, headers = forged["/tdx/certification/v4/tcb"]
    found.collateral.unlink()
    changed = {**forged, "/tdx/certification/v4/tcb": (body.replace(b"UpToDate", b"Revoked!", 1), headers)}
    with by_https(changed, tmp_path) as (base, _):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "standin.pem"))
        with pytest.raises(SpecError):
            collect(report, base)
    assert not found.collateral.exists()


def test_by_the_command(milan: Maker, tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(milan.report())
    with by_https(amds(milan), tmp_path) as (base, _):
        words = ("attest", "certificates", str(tmp_path / "report"), "--amd", base)
        ran = call(*words, SSL_CERT_FILE=str(tmp_path / "standin.pem"))
    assert ran.returncode == 110 and "no root known here" in ran.stderr  # the command knows AMD's roots alone
    (tmp_path / "report").write_bytes(b"nothing")
    assert call(*words).returncode == 110

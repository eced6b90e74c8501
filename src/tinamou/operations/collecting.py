"""What a report's maker says about it, fetched once and kept: certificates of AMD's, collateral of Intel's.

Each file is judged before it is kept: a chain must end at a root known here (`attest/certificates.py`), whatever the server
or who stands in front of it says. Source: AMD 57230 (VCEK Certificate and KDS Interface); Intel PCS API version 4.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from tinamou.attest import MalformedError, snp, tdx
from tinamou.attest.certificates import UntrustedError, check_chain, load, load_lists, named
from tinamou.errors import ImageError, SpecError
from tinamou.images import http
from tinamou.late import dataclass
from tinamou.system.paths import cache_dir

__all__ = ["AMD", "INTEL", "Collected", "collect", "folder_of"]

AMD = "https://kdsintf.amd.com"
INTEL = "https://api.trustedservices.intel.com"
_ROOT_LIST = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
"""What Intel's root revoked; a PCCS has it below its own address."""
_MOST = 8 << 20


@dataclass(frozen=True)
class Collected:
    """The folder for --certs, or the file for --collateral, and each address something was got from."""

    certificates: Path | None
    collateral: Path | None
    fetched: tuple[str, ...]


def folder_of(report: bytes) -> Path:
    """Where what belongs to a report is kept: by its chip and level, or by its processor's certificates."""
    if snp.is_one(report):
        found = snp.parse(report)
        text = found.chip_id + found.reported_tcb + bytes([found.key & 0xFF])
        return cache_dir() / "attest" / f"sev-snp-{hashlib.sha256(text).hexdigest()[:32]}"
    if tdx.is_one(report):
        return cache_dir() / "attest" / f"tdx-{hashlib.sha256(tdx.parse(report).pem).hexdigest()[:32]}"
    raise SpecError("nothing is to be had for it", why="its maker is neither AMD (SEV-SNP) nor Intel (TDX)")


def collect(report: bytes, product: str = "", *, amd: str = AMD, intel: str = INTEL) -> Collected:
    """Fetch what is needed to judge a report, and keep it in a private folder. Raises SpecError, MalformedError.

    ``product`` (Milan, Genoa, Turin) is needed for reports of version 2, which do not say it.
    """
    folder = folder_of(report)
    if snp.is_one(report):
        return _from_amd(snp.parse(report), product, amd, folder)
    return _from_intel(report, intel, folder)


def _from_amd(report: snp.SnpReport, product: str, base: str, folder: Path) -> Collected:
    name = report.product or product
    if not name:
        why = "a report of version 2 does not say which processor it is of"
        raise SpecError("no certificates", why=why, fix="say it: Milan or Genoa")
    kind = "vlek" if report.by == "VLEK" else "vcek"
    addresses = {"chain.pem": f"{base}/{kind}/v1/{name}/cert_chain", "revoked.crl": f"{base}/{kind}/v1/{name}/crl"}
    if kind == "vcek":
        addresses["vcek.der"] = snp.address_of(report, name, base)
    found = {file: _asked(address)[0] for file, address in addresses.items()}
    try:
        chain = load(found["chain.pem"])
        leaf = load(found["vcek.der"]) if kind == "vcek" else []
        lists = load_lists(found["revoked.crl"])
        check_chain([*leaf, *chain], lists, _now(), listed=False)
    except (MalformedError, UntrustedError) as error:
        raise _forged(base, str(error)) from None
    _kept(folder, found)
    return Collected(folder, None, tuple(addresses.values()))


def _from_intel(report: bytes, base: str, folder: Path) -> Collected:
    """Intel's word on the processor that a quote is of, as dcap-qvl reads it."""
    try:
        import dcap_qvl
    except ImportError:
        raise SpecError("no collateral", why="dcap-qvl is missing", fix="install tinamou[attest]") from None
    pem = tdx.parse(report).pem
    try:
        model = dcap_qvl.parse_pck_extension_from_pem(pem).fmspc
        authority = "processor" if "Processor" in named(load(pem)[1]) else "platform"
    except Exception as error:  # a library in Rust: its errors have no common class
        raise MalformedError(f"its processor's certificate cannot be read: {error}") from None
    sgx, td = f"{base}/sgx/certification/v4", f"{base}/tdx/certification/v4"
    root = _ROOT_LIST if base == INTEL else f"{sgx}/rootcacrl"
    addresses = (
        f"{sgx}/pckcrl?ca={authority}&encoding=der",
        root,
        f"{td}/tcb?fmspc={model.hex() if isinstance(model, bytes) else model}",
        f"{td}/qe/identity",
    )
    (crl, crl_chain), (root_crl, _), (levels, levels_chain), (identity, identity_chain) = [_asked(one) for one in addresses]
    plain = {"pck_crl": crl.hex(), "pck_crl_issuer_chain": crl_chain}
    plain["root_ca_crl"] = root_crl.hex() if root == _ROOT_LIST else root_crl.decode("ascii", "replace")
    for name, word, body, chain in (
        ("tcb_info", "tcbInfo", levels, levels_chain),
        ("qe_identity", "enclaveIdentity", identity, identity_chain),
    ):
        plain[name], plain[f"{name}_signature"] = _signed_part(body, word, base)
        plain[f"{name}_issuer_chain"] = chain
    text = json.dumps(plain)
    try:
        tdx.check_issuers(text, _now())
        dcap_qvl.verify(report, dcap_qvl.QuoteCollateralV3.from_json(text), int(_now().timestamp()))
    except Exception as error:  # likewise
        if str(error) != tdx.NO_LEVEL:
            raise _forged(base, str(error)) from None
    _kept(folder, {"collateral.json": text.encode()})
    return Collected(None, folder / "collateral.json", addresses)


def _signed_part(body: bytes, word: str, base: str) -> tuple[str, str]:
    """Of an answer of Intel's: the part that is signed, letter by letter, and the signature."""
    text = body.decode("utf-8", "replace")
    try:
        signature = str(json.loads(text)["signature"])
        start = text.index(f'"{word}"') + len(word) + 2
        start = text.index("{", start)
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _forged(base, f"no {word}: {error}") from None
    return text[start:end], signature


def _asked(address: str) -> tuple[bytes, str]:
    """What is at an address, and the chain of who signed it, which Intel puts into a header."""
    policy = http.Policy(attempts=3)

    def once() -> tuple[bytes, str]:
        with http.client(policy) as client, http.request(client, address) as response:
            body = bytearray()
            for piece in response.iter_raw():
                body += piece
                if len(body) > _MOST:
                    raise ImageError(f"{address} is too long", why=f"more than {_MOST} bytes")
            chain = next((value for key, value in response.headers.items() if key.lower().endswith("issuer-chain")), "")
            return bytes(body), unquote(chain)

    try:
        return http.retried(once, lambda: 0, policy)
    except (ImageError, http.TransientError) as error:
        why = f"{error.what}: {error.why}" if isinstance(error, ImageError) else f"{address}: {error}"
        fix = "see whether it can be reached, and that the report says what its processor is"
        raise SpecError("nothing could be fetched", why=why, fix=fix) from None


def _forged(base: str, why: str) -> SpecError:
    return SpecError("what was got is not its maker's", why=f"{base}: {why}", fix="get it from the maker itself")


def _kept(folder: Path, files: dict[str, bytes]) -> None:
    """Each file at once, in a folder that is nobody else's."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    for name, data in files.items():
        part = folder.parent / f".{folder.name}-{name}-{os.getpid()}"
        part.write_bytes(data)
        part.replace(folder / name)


def _now() -> datetime:
    return datetime.now(UTC)

"""What the owner of a SEV-SNP guest signed goes to QEMU, and is refused by name where it cannot stand."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import subprocess

import pytest

pytest.importorskip("cryptography")

from confidential_cases import Case, facts, image_of, spec_of
from cryptography.hazmat.primitives.asymmetric import ec
from recorded import VERSIONS

from tinamou.attest import idblock
from tinamou.errors import PlanError, SpecError
from tinamou.launch.argv import argv
from tinamou.planner import plan
from tinamou.spec import load_spec

CASE = Case("sev-snp", "direct", "epyc-7003", VERSIONS[-1])
MADE = idblock.make(bytes(48), ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1()))
BLOCK, AUTH = (base64.b64encode(one).decode() for one in (MADE.block, MADE.auth))


def guest(case: Case = CASE, **said: object) -> dict[str, object]:
    """The object of QEMU's that is the guest's side of the encryption."""
    spec = spec_of(case)
    spec = dataclasses.replace(spec, confidential=dataclasses.replace(spec.confidential, **said))
    words = argv(plan(spec, facts(case, image_of(case))))
    return next(json.loads(one) for one in words if re.match(r'\{"qom-type":"(sev|tdx)', one))


def test_blocks_go_to_qemu() -> None:
    found = guest(id_block=BLOCK, id_auth=AUTH, host_data="ab")
    assert found["id-block"] == BLOCK and found["id-auth"] == AUTH and found["author-key-enabled"] is True
    assert found["host-data"] == base64.b64encode(b"\xab" + bytes(31)).decode()
    alone = idblock.make(bytes(48), ec.generate_private_key(ec.SECP384R1()))
    assert "author-key-enabled" not in guest(id_block=BLOCK, id_auth=base64.b64encode(alone.auth).decode())
    assert not {"id-block", "id-auth", "host-data"} & set(guest())


@pytest.mark.parametrize(("kind", "host"), [("sev", "epyc-7001"), ("sev-es", "epyc-7003"), ("tdx", "xeon")])
def test_others_know_nothing_of_the_kind(kind: str, host: str) -> None:
    with pytest.raises(PlanError, match="knows nothing of the kind"):
        guest(Case(kind, "direct", host, VERSIONS[-1]), host_data="ab")


def test_a_block_for_another_policy_is_refused() -> None:
    with pytest.raises(PlanError, match=r"is for the policy 0x30000, and the guest is started under 0xb0000"):
        guest(id_block=BLOCK, id_auth=AUTH, debug=True)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"id_block": "AAAA", "id_auth": AUTH}, "96 bytes"),
        ({"id_block": BLOCK, "id_auth": "?"}, "4096 bytes"),
        ({"id_block": BLOCK}, "go together"),
        ({"host_data": "xy"}, "32 bytes"),
        ({"host_data": "00" * 33}, "32 bytes"),
        ({"type": "off", "host_data": "00"}, "nothing is encrypted"),
    ],
)
def test_what_is_no_block(said: dict[str, str], word: str) -> None:
    with pytest.raises(SpecError) as told:
        load_spec({"confidential": {"type": "sev-snp", **said}})
    assert any(word in one.reason for one in told.value.problems)


def test_qemu_knows_these_properties() -> None:
    binary = (os.environ.get("TINAMOU_QEMU11") or os.environ.get("TINAMOU_QEMU10") or "").replace("{arch}", "x86_64")
    if not binary:
        pytest.skip("no QEMU 10 or 11 is here, whose sev-snp-guest has them")
    told = subprocess.run([binary, "-object", "sev-snp-guest,help"], capture_output=True, text=True, check=False).stdout
    for name in ("id-block", "id-auth", "author-key-enabled", "host-data"):
        assert f"  {name}=" in told

"""The broker of secrets, over real HTTP with a client that speaks the KBS protocol: who proves nothing gets nothing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("joserfc")

from attest.amd import MEASURED, NOW, Maker
from attest.served import certificate
from httpx2 import Client, Response
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey
from typed import TINAMOU

from tinamou.attest import Known, read_policy
from tinamou.attest.broker import Broker, Demanded
from tinamou.attest.certificates import ROOTS, pin

SECRET, PATH = b"the key of the disk", "default/key/disk"


class Guest:
    """A client of the protocol, as a guest with SEV-SNP would be one; its processor is a maker's of our own."""

    def __init__(self, base: str, maker: Maker, key: RSAKey | ECKey | None = None, verify: object = True) -> None:
        self.http = Client(base_url=base, verify=verify, timeout=60)  # type: ignore[arg-type]
        self.maker = maker
        self.key = key or RSAKey.generate_key(2048, {"alg": "RSA-OAEP-256"})

    def auth(self, tee: str = "snp") -> Response:
        return self.http.post("/kbs/v0/auth", json={"version": "0.4.0", "tee": tee, "extra-params": {}})

    def shown(self, nonce: str, **report: object) -> dict[str, object]:
        runtime = {"nonce": nonce, "tee-pubkey": self.key.as_dict(private=False)}
        text = json.dumps(runtime, sort_keys=True, separators=(",", ":")).encode()
        made = self.maker.report(**{"data": hashlib.sha384(text).digest(), **report})  # type: ignore[arg-type]
        evidence = {"primary_evidence": {"report": base64.b64encode(made).decode()}, "additional_evidence": "{}"}
        return {"runtime-data": runtime, "tee-evidence": evidence}

    def attest(self, **report: object) -> Response:
        return self.http.post("/kbs/v0/attest", json=self.shown(self.auth().json()["nonce"], **report))

    def resource(self, path: str = PATH) -> Response:
        return self.http.get(f"/kbs/v0/resource/{path}")

    def opened(self, answer: Response) -> bytes | None:
        return jwe.decrypt_json(answer.json(), self.key, algorithms=[self.key["alg"], "A256GCM"]).plaintext


@pytest.fixture(scope="module")
def milan() -> Maker:
    return Maker()


def demanded(maker: Maker, secret: bytes = SECRET, **policy: object) -> Demanded:
    known = Known(
        measured={"measurement": MEASURED},
        certificates=maker.chain(),
        revoked=(maker.revoked(),),
        policy=read_policy(b"floor = {snp = 14}"),
        at=NOW,
    )
    from tinamou import late

    return Demanded(secret, late.replace(known, **policy))


@contextlib.contextmanager
def serving(broker: Broker) -> Iterator[str]:
    """The broker on a port of this host, in a thread of its own."""
    import asyncio
    import threading

    from tinamou.service.broker import serve

    at, ready = [], threading.Event()

    def told(where: str) -> None:
        at.append(where)
        ready.set()

    loop = asyncio.new_event_loop()
    task = loop.create_task(serve(broker, ("127.0.0.1", 0), None, None, told))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        yield at[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(60)
        loop.close()


@pytest.fixture
def log() -> list[dict[str, object]]:
    return []


@pytest.fixture
def base(milan: Maker, monkeypatch: pytest.MonkeyPatch, log: list[dict[str, object]]) -> Iterator[str]:
    monkeypatch.setitem(ROOTS, pin(milan.root), "a root of our own")
    other = demanded(milan, b"another", measured={"measurement": b"\xff" * 48})
    with serving(Broker({PATH: demanded(milan), "default/key/other": other}, log.append)) as where:
        yield where


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-384", "P-521"])
def test_a_guest_that_proves_itself(base: str, milan: Maker, log: list[dict[str, object]], kind: str) -> None:
    key = ECKey.generate_key(kind, {"alg": "ECDH-ES+A256KW"}) if kind != "RSA" else None
    guest = Guest(base, milan, key)
    assert guest.resource().status_code == 401
    answer = guest.attest()
    assert answer.status_code == 200 and answer.json()["token"]
    assert guest.opened(guest.resource()) == SECRET
    assert guest.resource("default/key/other").status_code == 403
    assert guest.resource("default/key/none").status_code == 403
    events = [one["event"] for one in log]
    assert events.count("released") == 1 and events.count("proven") == 1 and events.count("not proven") == 1
    assert SECRET.decode() not in json.dumps(log)


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ({"policy": 0xB0000}, "policy"),
        ({"data": b"asked yesterday"}, "fresh"),
        ({"fields": {0x90: bytes(48)}}, "expected"),
        ({"key": 7 << 2}, "genuine"),
    ],
)
def test_a_guest_that_does_not(
    base: str, milan: Maker, log: list[dict[str, object]], said: dict[str, object], question: str
) -> None:
    guest = Guest(base, milan)
    answer = guest.attest(**said)
    assert answer.status_code == 401 and question not in json.dumps(answer.json())  # why, only the log says
    assert guest.resource().status_code == 401
    why = next(one["why"] for one in log if one["event"] == "not proven" and one["resource"] == PATH)
    assert isinstance(why, dict) and list(why) == [question]


def test_anothers_report_and_key(base: str, milan: Maker) -> None:
    assert Guest(base, Maker()).attest().status_code == 401  # another processor's
    guest, thief = Guest(base, milan), Guest(base, milan)
    mine = guest.shown(guest.auth().json()["nonce"])
    told = thief.shown(thief.auth().json()["nonce"])
    replayed = thief.http.post("/kbs/v0/attest", json={**told, "tee-evidence": mine["tee-evidence"]})
    assert replayed.status_code == 401
    thief.auth()
    assert thief.http.post("/kbs/v0/attest", json=mine).status_code == 401  # the number of another session
    assert guest.http.post("/kbs/v0/attest", json=mine).status_code == 200
    assert guest.http.post("/kbs/v0/attest", json=mine).status_code == 401  # once for each number


@pytest.mark.filterwarnings("ignore:Key size")
def test_what_is_no_request(base: str, milan: Maker) -> None:
    guest = Guest(base, milan)
    for body in (b"", b"[]", b"{}", b'{"version": "1.0", "tee": "snp"}', b'{"version": "0.1", "tee": "sgx"}', b"[" * 99999):
        assert guest.http.post("/kbs/v0/auth", content=body).status_code == 401
    good = guest.shown("x")
    for broken in (
        {},
        {**good, "runtime-data": {"nonce": "x"}},
        {**good, "tee-evidence": {"primary_evidence": {}}},
        {**good, "tee-evidence": {"primary_evidence": {"report": "?"}}},
        {**good, "tee-evidence": {**good["tee-evidence"], "additional_evidence": '{"nvidia": []}'}},  # type: ignore[dict-item]
    ):
        nonce = guest.auth().json()["nonce"]
        if "nonce" in broken.get("runtime-data", {}):
            broken["runtime-data"] = {**broken["runtime-data"], "nonce": nonce}  # type: ignore[dict-item]
        assert guest.http.post("/kbs/v0/attest", json=broken).status_code == 401
    assert guest.http.post("/kbs/v0/attest", content=bytes(5 << 20)).status_code == 401
    for name, value in (("crv", ["P-256"]), ("kty", {}), ("alg", None), ("note", "\ud800"), ("crv", "P-192")):
        shown = guest.shown(guest.auth().json()["nonce"])
        key = ECKey.generate_key("P-256", {"alg": "ECDH-ES+A256KW"}).as_dict(private=False)
        runtime = {**shown["runtime-data"], "tee-pubkey": {**key, name: value}}  # type: ignore[dict-item]
        body = json.dumps({**shown, "runtime-data": runtime}).encode()
        assert guest.http.post("/kbs/v0/attest", content=body).status_code == 401, (name, value)
    for alg, key in (("RSA1_5", RSAKey.generate_key(2048)), ("RSA-OAEP-256", RSAKey.generate_key(1024))):
        shown = guest.shown(guest.auth().json()["nonce"])
        jwk = {**key.as_dict(private=False), "alg": alg}
        shown["runtime-data"] = {**shown["runtime-data"], "tee-pubkey": jwk}  # type: ignore[dict-item]
        assert guest.http.post("/kbs/v0/attest", json=shown).status_code == 401
    assert guest.http.get("/kbs/v0/resource/../../etc/passwd").status_code in (401, 404)
    assert guest.http.post("/kbs/v0/resource/default/key/disk", content=b"x").status_code == 405


def test_sessions_are_few_and_end(milan: Maker, log: list[dict[str, object]]) -> None:
    now = [0.0]
    broker = Broker({PATH: demanded(milan)}, log.append, rate=3, clock=lambda: now[0])
    ask = b'{"version": "0.1.1", "tee": "snp"}'
    assert [broker.auth(ask, "a").status for _ in range(5)] == [200, 200, 200, 429, 429]
    assert broker.auth(ask, "b").status == 200
    now[0] = 61.0
    last = broker.auth(ask, "a")
    assert last.status == 200
    now[0] = 400.0
    assert broker.attest(last.session, b"{}", "a").status == 401 and "no number" in str(log[-1]["why"])
    many = Broker({PATH: demanded(milan)}, log.append, rate=10_000, clock=lambda: now[0])
    assert [many.auth(ask, "a").status for _ in range(257)].count(429) == 1


def test_the_command_serves_by_tls(milan: Maker, tmp_path: Path) -> None:
    """As users start it: it knows AMD's roots alone, so that our guest is refused, with the reason in its log."""
    chain = tmp_path / "amd"
    chain.mkdir()
    for number, one in enumerate(milan.chain()):
        (chain / f"{number}.pem").write_bytes(one)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "broker.toml").write_text(
        f'[resource."{PATH}"]\nfile = "secret"\ncerts = "amd"\nexpect = "{MEASURED.hex()}"\nat = "2026-01-31"\n'
    )
    cert, key = certificate(tmp_path)
    words = [*TINAMOU, "attest", "serve", str(tmp_path / "broker.toml"), "--listen", "127.0.0.1:0"]
    words += ["--tls-cert", str(cert), "--tls-key", str(key)]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        told = json.loads(running.stdout.readline())
        assert told["event"] == "serving" and told["url"].startswith("https://127.0.0.1:")
        guest = Guest(told["url"], milan, verify=ssl.create_default_context(cafile=str(cert)))
        asked = guest.auth()
        assert asked.status_code == 200 and "secure" in asked.headers["set-cookie"].lower()
        assert guest.attest().status_code == 401
        line = json.loads(running.stdout.readline())
        assert line["event"] == "not proven" and "genuine" in line["why"]
        running.send_signal(signal.SIGTERM)
        assert running.wait(120) == 0
    finally:
        running.kill()
        running.communicate()
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[resource."a/b"]\nfile = "secret"\n[resource."a/b/c"]\nfile = "none"\nnonce = "00"\n')
    ran = subprocess.run([*TINAMOU, "attest", "serve", str(wrong)], capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 110 and "a/b" in ran.stderr and "nonce is nothing" in ran.stderr

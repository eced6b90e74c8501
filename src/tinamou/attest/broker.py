"""A broker of secrets: what a guest must prove, and say, before it is given one; each answer of it, without a network.

It speaks the KBS protocol of confidential-containers (trustee, kbs/docs/kbs_attestation_protocol.md): a guest asks for a
number, shows a report that has the hash of that number and of a key it made, and gets secrets encrypted to that key. Who
sends nothing that proves a start that was demanded gets nothing, and not why: that is in the log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.attest import jwe
from tinamou.attest.binary import MalformedError
from tinamou.attest.verify import Known, verify
from tinamou.late import dataclass, field

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["MOST_BODY", "Broker", "Demanded", "Reply"]

MOST_BODY = 4 << 20
"""Bytes of a request that are looked at."""
_SESSIONS, _SECONDS = 256, 300.0
_TEES = {"snp": ("report", "sev-snp"), "tdx": ("quote", "tdx"), "tpm": ("quote", "tpm")}
"""What each kind of guest calls its evidence, and what the verdict on it is of."""
_PROBLEM = "https://github.com/confidential-containers/kbs/errors/"


@dataclass(frozen=True)
class Demanded:
    """A secret, and what must be known of a guest that gets it; the nonce in it counts for nothing."""

    secret: bytes
    known: Known


@dataclass(frozen=True)
class Reply:
    """An answer: its HTTP status, its body, and the session the guest is to name from then on, empty for none."""

    status: int
    body: dict[str, object]
    session: str = ""


@dataclass
class _Session:
    client: str
    tee: str
    nonce: str
    ends: float
    key: RSAPublicKey | EllipticCurvePublicKey | None = None
    granted: frozenset[str] = field(default_factory=frozenset)


class Broker:
    """Keeps the sessions, ``rate`` of which one client may begin in a minute; ``log`` is told of each that is decided.

    Its functions may be called from several threads.
    """

    def __init__(
        self,
        demanded: Mapping[str, Demanded],
        log: Callable[[dict[str, object]], None],
        *,
        rate: int = 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._demanded = demanded
        self._log = log
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._asked: dict[str, list[float]] = {}

    def auth(self, body: bytes, client: str) -> Reply:
        """POST /kbs/v0/auth: a number for the report to come."""
        try:
            told = _read(body)
            version, tee = told.get("version"), told.get("tee")
            if not isinstance(version, str) or not version.startswith("0."):
                raise MalformedError(f"version {version!r} of the protocol; 0.1 to 0.4 are known here")
            if not isinstance(tee, str) or tee not in _TEES:
                raise MalformedError(f"tee {tee!r}; {', '.join(_TEES)} are known here")
        except MalformedError as error:
            return self._refused(401, "ProtocolVersion", str(error), client)
        session, nonce, now = secrets.token_urlsafe(24), base64.b64encode(secrets.token_bytes(32)).decode(), self._clock()
        with self._lock:
            if not self._may(client, now):
                return self._refused(429, "TooManyRequests", f"more than {self._rate} sessions in a minute", client)
            self._sessions = {name: one for name, one in self._sessions.items() if one.ends > now}
            if len(self._sessions) >= _SESSIONS:
                return self._refused(429, "TooManyRequests", "too many sessions wait", client)
            self._sessions[session] = _Session(client, tee, nonce, now + _SECONDS)
        return Reply(200, {"nonce": nonce, "extra-params": {}}, session)

    def attest(self, session: str, body: bytes, client: str) -> Reply:
        """POST /kbs/v0/attest: the report, once for each number."""
        with self._lock:
            held = self._sessions.get(session)
            nonce = held.nonce if held is not None and held.ends > self._clock() else ""
            if held is not None:
                held.nonce = ""
        if held is None or not nonce:
            return self._refused(401, "NoSession", "no number was drawn for this session, or it was used", client)
        try:
            key, bound, report, log = _evidence(body, held.tee, nonce)
            granted = self._judged(held, bound, report, log, client)
        except MalformedError as error:
            return self._refused(401, "AttestationFailed", str(error), client)
        if not granted:
            return self._refused(401, "AttestationFailed", "nothing is released to what was shown", client)
        with self._lock:
            held.key, held.granted = key, granted
        return Reply(200, {"token": session}, session)

    def resource(self, session: str, path: str, client: str) -> Reply:
        """GET /kbs/v0/resource/REPOSITORY/TYPE/TAG: a secret that was granted, encrypted to the guest's key."""
        with self._lock:
            held = self._sessions.get(session)
            live = held is not None and held.ends > self._clock()
            key, granted = (held.key, held.granted) if held is not None and live else (None, frozenset[str]())
        if key is None:
            return self._refused(401, "NotAttested", "this session has shown no report", client, path)
        if path not in granted:  # whether there is such a secret is nobody's business who does not get it
            return self._refused(403, "Forbidden", "it is not released to this guest", client, path)
        self._log({"event": "released", "client": client, "resource": path})
        return Reply(200, dict(jwe.sealed(self._demanded[path].secret, key)))

    def _may(self, client: str, now: float) -> bool:
        recent = [one for one in self._asked.get(client, ()) if now - one < 60.0]
        if len(self._asked) > 4 * _SESSIONS:
            self._asked = {who: times for who, times in self._asked.items() if now - times[-1] < 60.0}
        if len(recent) >= self._rate or len(self._asked) > 8 * _SESSIONS:
            return False
        self._asked[client] = [*recent, now]
        return True

    def _judged(self, held: _Session, bound: bytes, report: bytes, log: bytes, client: str) -> frozenset[str]:
        """The secrets all five answers about which are yes."""
        granted = set[str]()
        for path, one in self._demanded.items():
            verdict = verify(report, late.replace(one.known, nonce=bound, log=log or one.known.log))
            if verdict.kind != _TEES[held.tee][1]:
                raise MalformedError(f"a report of {verdict.kind} in a session of {held.tee}")
            if verdict.proven:
                granted.add(path)
            told = {each.question: each.why or each.answer for each in verdict.answers if each.answer != "yes"}
            said = "proven" if verdict.proven else "not proven"
            self._log({"event": said, "client": client, "tee": held.tee, "resource": path, "why": told})
        return frozenset(granted)

    def _refused(self, status: int, kind: str, why: str, client: str, path: str = "") -> Reply:
        said = {"resource": path} if path else {}
        self._log({"event": "refused", "client": client, "status": status, "why": why, **said})
        return Reply(status, {"type": _PROBLEM + kind, "detail": why})


def _read(body: bytes) -> dict[str, object]:
    if len(body) > MOST_BODY:
        raise MalformedError(f"more than {MOST_BODY} bytes")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"no JSON: {error}") from None
    if not isinstance(told, dict):
        raise MalformedError("no object")
    return told


def _evidence(body: bytes, tee: str, nonce: str) -> tuple[RSAPublicKey | EllipticCurvePublicKey, bytes, bytes, bytes]:
    """The guest's key, what its report must have in it, the report, and its log of events. Raises MalformedError."""
    told = _read(body)
    runtime, evidence = told.get("runtime-data"), told.get("tee-evidence")
    if not isinstance(runtime, dict) or not isinstance(evidence, dict):
        raise MalformedError("runtime-data and tee-evidence are missing")
    if evidence.get("additional_evidence") not in (None, "", "{}"):
        raise MalformedError("evidence of further devices is not judged here")
    shown, jwk = evidence.get("primary_evidence"), runtime.get("tee-pubkey")
    if runtime.get("nonce") != nonce or not isinstance(jwk, dict) or not isinstance(shown, dict):
        raise MalformedError("it has not the session's number, a key and the evidence of the guest")
    key, text = jwe.key_of(jwk), jwe.canonical(runtime)
    bound = hashlib.sha256(text).digest() if tee == "tpm" else hashlib.sha384(text).digest()
    return key, bound, _decoded(shown, _TEES[tee][0]), _decoded(shown, "cc_eventlog")


def _decoded(shown: Mapping[str, object], name: str) -> bytes:
    value = shown.get(name)
    if value is None:
        return b""
    try:
        return base64.b64decode(str(value), validate=True)
    except (ValueError, binascii.Error):
        raise MalformedError(f"{name} is no base64") from None

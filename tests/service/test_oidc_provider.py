"""An identity provider that others wrote (oidc-provider-mock, on Authlib): its users log in, and the service believes it."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from service_here import machine, serving
from typed import eventually

pytest.importorskip("oidc_provider_mock", reason="oidc-provider-mock is not installed (pip install oidc-provider-mock)")

_PROVIDER = """
import sys, warnings
warnings.simplefilter("ignore")
from oidc_provider_mock import User, app
people = [User(sub=name, claims={"email": f"{name}@example.org", "groups": [group]})
          for name, group in (("ann", "operators"), ("bob", "readers"), ("eve", "none"))]
app(user_claims=people).run("localhost", int(sys.argv[1]), ssl_context=(sys.argv[2], sys.argv[3]), threaded=True)
"""
_RULES = """
audience = "tinamou"
name = "email"
[[rule]]
claim = "groups"
value = "operators"
verbs = ["*"]
[[rule]]
claim = "groups"
value = "readers"
verbs = ["ls", "show"]
machines = ["ci-*"]
"""


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The provider's address, by TLS with a certificate that this test and what it starts trust."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert, *names]
    subprocess.run(words, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    monkeypatch.setenv("NO_PROXY", "localhost")
    with socket.create_server(("localhost", 0)) as free:
        port = int(free.getsockname()[1])
    log = (tmp_path / "provider.log").open("wb")
    running = subprocess.Popen([sys.executable, "-c", _PROVIDER, str(port), cert, key], stdout=log, stderr=log)
    try:
        eventually(lambda: _listens(port) or running.poll() is not None, "the provider")
        yield f"https://localhost:{port}"
    finally:
        running.kill()
        running.wait()
        log.close()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def logged_in(provider: str, who: str, client: str = "tinamou") -> str:
    """The token that somebody has who logged in with a browser: OpenID Connect's code flow."""
    back = "https://vm.example.org/back"
    asked = {"client_id": client, "redirect_uri": back, "response_type": "code", "scope": "openid email", "state": "1"}
    with httpx2.Client(verify=ssl.create_default_context()) as http:
        sent = http.post(f"{provider}/oauth2/authorize", params=asked, data={"sub": who})
        found = re.search(r"[?&]code=([^&]+)", sent.headers["location"])
        assert found is not None, sent.headers
        told = {"grant_type": "authorization_code", "code": found[1], "redirect_uri": back}
        answer = http.post(f"{provider}/oauth2/token", data=told, auth=(client, "secret"))
        return str(answer.json()["id_token"])


def test_whoever_logged_in_there_does_what_the_rules_say(state, tmp_path, provider):
    (tmp_path / "oidc.toml").write_text(f'issuer = "{provider}"\n{_RULES}')
    for name in ("web", "ci-1"):
        machine(state, name)
    with serving(state, "--oidc", str(tmp_path / "oidc.toml")) as served:

        def status(token: str, path: str) -> int:
            return served.ask("GET", path, authorization=f"Bearer {token}").status

        ann, bob, eve = (logged_in(provider, who) for who in ("ann", "bob", "eve"))
        eventually(lambda: status(ann, "/v1/me") == 200, "the provider's keys")
        assert served.ask("GET", "/v1/me", authorization=f"Bearer {ann}").json["name"] == "oidc:ann@example.org"
        assert (status(ann, "/v1/machines/web"), status(ann, "/v1/doctor")) == (200, 200)
        assert (status(bob, "/v1/machines/ci-1"), status(bob, "/v1/machines/web"), status(bob, "/v1/doctor")) == (
            200,
            403,
            403,
        )
        assert status(eve, "/v1/me") in (401, 403)
        assert status(logged_in(provider, "ann", "another-program"), "/v1/me") in (401, 403)
        head, body, signature = ann.split(".")
        for forged in (
            f"{head}.{body}.{signature[:-8]}AAAAAAAA",
            f"{head}.{bob.split('.')[1]}.{signature}",
            f"{head}.{body}.",
        ):
            assert status(forged, "/v1/me") in (401, 403)

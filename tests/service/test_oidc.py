"""Tokens of an identity provider: whom the service believes, and what it lets them do."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from service_here import machine, serving
from starlette.testclient import TestClient

from tinamou.errors import SpecError
from tinamou.service import oidc
from tinamou.service.app import application
from tinamou.service.oidc import Issuer, Provider, Rule, provider_of
from tinamou.service.shared import Service, Settings

HOME = "https://login.example.org"
KEY = ECKey.generate_key("P-256", {"kid": "one"})
OTHER = ECKey.generate_key("P-256", {"kid": "one"})
LATER = RSAKey.generate_key(2048, {"kid": "two"})
RULES = (Rule("groups", "operators", ("*",)), Rule("groups", "readers", ("ls", "show"), ("ci-*",)))
PUBLIC = KeySet([KEY]).as_dict(private=False)


def issuer(**more: Any) -> Issuer:
    found = Issuer(Provider(HOME, "tinamou", "email", RULES, **more), lambda _: PUBLIC)
    found._keys = KeySet.import_key_set(PUBLIC)
    return found


def signed(key: Any = KEY, header: dict[str, Any] | None = None, **claims: Any) -> str:
    usual = {
        "iss": HOME,
        "aud": "tinamou",
        "sub": "17",
        "email": "ann@example.org",
        "groups": ["readers"],
        "exp": time.time() + 600,
    }
    told = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode({"alg": "ES256", **({"kid": "one"} if header is None else header)}, told, key)


def test_who_holds_a_token_and_what_they_may_do():
    reader = issuer().caller(signed())
    assert (reader.name, reader.owner) == ("oidc:ann@example.org", f"oidc:{HOME}#17")
    assert reader.may("show", "ci-1") and not reader.may("show", "web") and not reader.may("rm", "ci-1")
    both = issuer().caller(signed(groups=["readers", "operators"]))
    assert both.may("rm", "web")  # the first rule that fits
    assert issuer().caller(signed(email="a\nb")).name == "oidc:17"
    assert issuer().caller(signed(email=None, sub="a\nb")).name == "oidc:somebody"
    assert issuer().caller(signed(aud=["other", "tinamou"])) is not None


def test_an_address_counts_where_the_provider_has_seen_it_proven():
    ann = (Rule("email", "ann@example.org", ("*",)),)
    by_address = Issuer(Provider(HOME, "tinamou", "email", ann), lambda _: PUBLIC)
    by_address._keys = KeySet.import_key_set(PUBLIC)
    assert by_address.caller(signed(email_verified=True)) is not None
    for claimed in (None, False, "false", 1.5):
        assert by_address.caller(signed(email_verified=claimed)) is None


def test_the_one_key_a_provider_has_need_not_be_named_and_of_two_one_must():
    one = issuer()
    assert one.caller(signed(header={})) is not None and one.caller(signed(OTHER, header={})) is None
    one._keys = KeySet.import_key_set(KeySet([KEY, LATER]).as_dict(private=False))
    assert [one.caller(signed(header={})) for _ in range(16)] == [None] * 16
    assert one.caller(signed()) is not None


def unsigned() -> str:
    body = {"iss": HOME, "aud": "tinamou", "sub": "17", "groups": ["operators"], "exp": 9e9}
    parts = ({"alg": "none", "kid": "one"}, body)
    return ".".join(base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts) + "."


def by_the_public_key() -> str:
    """Signed with what everybody knows, as a shared secret."""
    secret = OctKey.import_key(json.dumps(PUBLIC["keys"][0]), {"kid": "one"})
    return signed(secret, {"alg": "HS256", "kid": "one"})


@pytest.mark.parametrize(
    "text",
    [
        *(signed(iss="https://evil.example"), signed(aud="other"), signed(aud=None), signed(iss=None), signed(sub=None)),
        *(signed(exp=time.time() - 60), signed(exp=None), signed(nbf=time.time() + 86400), signed(exp="never")),
        *(signed(groups=["others"]), signed(groups=None), signed(groups={"readers": 1}), signed(sub=5), signed(sub="")),
        *(signed(OTHER), unsigned(), by_the_public_key(), signed()[:-4] + "AAAA", "", "a.b.c", "..", "tnm_x", "é.é.é"),
        signed(header={"kid": "two"}),
    ],
)
def test_who_is_not_believed(text):
    assert issuer().caller(text) is None


def test_nobody_is_believed_before_there_are_keys():
    assert Issuer(Provider(HOME, "tinamou", "sub", RULES)).caller(signed()) is None


def test_a_key_of_late_is_asked_for_and_a_provider_that_is_away_takes_nothing(monkeypatch, caplog):
    monkeypatch.setattr(oidc, "SOON_SECONDS", 0.01)
    told: list[Any] = [OSError("away"), PUBLIC, KeySet([KEY, LATER]).as_dict(private=False), OSError("away again")]

    def fetch(_: str) -> Any:
        one = told.pop(0) if len(told) > 1 else told[0]
        if isinstance(one, Exception):
            raise one
        return one

    async def go() -> None:
        one = Issuer(Provider(HOME, "tinamou", "sub", RULES), fetch)
        running = asyncio.ensure_future(one.run())
        late = signed(LATER, {"alg": "RS256", "kid": "two"})
        while one.caller(signed()) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while one.caller(late) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while "away again" not in caplog.text:
            one.caller(signed(header={"kid": "three"}))
            await asyncio.sleep(0.01)
        assert one.caller(late) is not None
        running.cancel()

    asyncio.run(asyncio.wait_for(go(), 120))


def test_what_a_provider_says_of_itself(monkeypatch):
    answers: dict[str, Any] = {}
    real = httpx2.Client

    def answer(request: httpx2.Request) -> httpx2.Response:
        found = answers.get(str(request.url))
        return found if isinstance(found, httpx2.Response) else httpx2.Response(404 if found is None else 200, json=found)

    monkeypatch.setattr(httpx2, "Client", lambda **more: real(transport=httpx2.MockTransport(answer), **more))
    where, keys = f"{HOME}/.well-known/openid-configuration", f"{HOME}/keys"
    answers |= {where: {"issuer": HOME, "jwks_uri": keys}, keys: PUBLIC}
    assert oidc.fetched(HOME) == PUBLIC
    for odd in (
        *(
            {"issuer": "https://evil.example", "jwks_uri": keys},
            {"issuer": HOME, "jwks_uri": "http://login.example.org/keys"},
        ),
        *({"issuer": HOME}, [], httpx2.Response(302, headers={"location": keys})),
        httpx2.Response(200, content=b" " * (2 << 20)),
    ):
        answers[where] = odd
        with pytest.raises((OSError, ValueError)):
            oidc.fetched(HOME)


@pytest.fixture
def client(state: Path) -> Iterator[TestClient]:
    machine(state, "ci-1")
    machine(state, "web")
    app = application(Service(Settings(issuer=issuer())))
    with TestClient(app, base_url="https://localhost", follow_redirects=False) as client:
        yield client


def test_at_the_door_and_on_the_page(client):
    by = {"authorization": f"Bearer {signed()}"}
    assert client.get("/v1/me", headers=by).json() == {
        "name": "oidc:ann@example.org",
        "verbs": ["ls", "show"],
        "machines": ["ci-*"],
    }
    assert [one["name"] for one in client.get("/v1/machines", headers=by).json()["machines"]] == ["ci-1"]
    assert client.get("/v1/machines/web", headers=by).status_code == 403
    assert client.delete("/v1/machines/ci-1", headers=by).status_code == 403
    assert client.get("/v1/me", headers={"authorization": f"Bearer {signed(OTHER)}"}).status_code == 401
    mark = client.get("/login").text.partition('name="mark" value="')[2][:64]
    assert client.post("/login", data={"mark": mark, "token": signed(OTHER)}).status_code == 401
    assert client.post("/login", data={"mark": mark, "token": signed()}).status_code == 303
    assert "ci-1" in client.get("/").text


@pytest.mark.parametrize(
    "text",
    [
        "issuer = 'http://login.example.org'\naudience = 'x'\n[[rule]]\nclaim='a'\nvalue='b'\nverbs=['ls']",
        f"issuer = '{HOME}'\n[[rule]]\nclaim='a'\nvalue='b'\nverbs=['ls']",
        f"issuer = '{HOME}'\naudience = 'x'",
        f"issuer = '{HOME}'\naudience = 'x'\n[[rule]]\nclaim='a'\nvalue='b'\nverbs=['fly']",
        f"issuer = '{HOME}'\naudience = 'x'\n[[rule]]\nclaim='a'\nverbs=['ls']",
        "issuer = ",
        "other = 1",
    ],
)
def test_a_file_that_would_let_in_the_wrong_ones_is_refused(tmp_path, text):
    (tmp_path / "oidc.toml").write_text(text)
    with pytest.raises(SpecError):
        provider_of(tmp_path / "oidc.toml")


def test_the_example_is_understood(tmp_path):
    example = (oidc.__doc__ or "").partition("::\n")[2].rpartition("Sources:")[0]
    (tmp_path / "oidc.toml").write_text("\n".join(line[4:] for line in example.splitlines()))
    found = provider_of(tmp_path / "oidc.toml")
    assert (found.audience, found.name, found.rule) == ("tinamou", "email", RULES[:1])


def test_it_is_served_and_a_provider_that_is_away_keeps_nobody_out(state, tmp_path):
    rule = "[[rule]]\nclaim = 'groups'\nvalue = 'x'\nverbs = ['ls']"
    (tmp_path / "oidc.toml").write_text(f"issuer = 'https://localhost:1'\naudience = 'x'\n{rule}")
    with serving(state, "--oidc", str(tmp_path / "oidc.toml")) as served:
        assert served.ask("GET", "/v1/me").status == 200
        assert served.ask("GET", "/v1/me", authorization=f"Bearer {signed()}").status == 403

"""Who calls, by the word of an identity provider: tokens it has signed (OpenID Connect), and what who holds one may do.

A file says whom to believe, in TOML::

    issuer = "https://login.example.org"
    audience = "tinamou"
    name = "email"                          # the claim by which people are called here; sub when left out

    [[rule]]                                # the first one that fits counts
    claim = "groups"
    value = "operators"
    verbs = ["*"]
    machines = ["*"]

Sources: OpenID Connect Core 1.0, 3.1.3.7; OpenID Connect Discovery 1.0, 4; RFC 8725 (what to mind about JWT).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from tinamou import fields
from tinamou.errors import Problem, SpecError
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.service.auth import Caller
from tinamou.state.tokens import VERBS
from tinamou.system.loop_thread import in_thread

__all__ = ["Issuer", "Provider", "Rule", "fetched", "provider_of"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Those whose keys are the provider's alone: one that the verifier has too would let it sign."""
AGAIN_SECONDS = 600.0
"""How often keys are fetched."""
SOON_SECONDS = 15.0
"""How soon again, where that failed or a token names a key that is not known."""
_LEEWAY = 30
_MOST = 1 << 20
_LONGEST_NAME = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """What may do who has this value, alone or among others, in this claim."""

    claim: str = option("", "a claim of the token; email only where the token says that it is verified")
    value: str = option("", "what it must be, or have among others")
    verbs: tuple[str, ...] = option((), "verbs of tokens, or * for all")
    machines: tuple[str, ...] = option(("*",), "patterns of machines' names")


@dataclass(frozen=True)
class Provider:
    """Whom to believe, about what."""

    issuer: str = option("", "its address, as its tokens have it")
    audience: str = option("", "for whom its tokens must be")
    name: str = option("sub", "the claim by which people are called")
    rule: tuple[Rule, ...] = option((), "who may do what; the first that fits counts")

    def problems(self) -> list[Problem]:
        """What nobody could be believed by."""
        found = []
        if not self.issuer.startswith("https://"):
            found.append(Problem("issuer", self.issuer, "no https:// address", "its keys must come from it alone"))
        if not self.audience:
            found.append(Problem("audience", None, "is not given", "without it tokens for other services would do"))
        for number, one in enumerate(self.rule):
            odd = [verb for verb in one.verbs if verb != "*" and verb not in VERBS]
            if odd or not one.verbs:
                found.append(Problem(f"rule[{number}].verbs", odd, "no verbs", f"known: *, {', '.join(VERBS)}"))
            if not one.claim or not one.value:
                found.append(Problem(f"rule[{number}]", None, "fits everybody or nobody", "name a claim and its value"))
        return found if self.rule else [*found, Problem("rule", None, "there is none", "without one nobody may do anything")]


def provider_of(path: Path) -> Provider:
    """What a file says. Raises SpecError."""
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read", why=str(error)) from error
    found, problems = fields.load(Provider, data)
    if found is None:
        raise SpecError(f"{path} is not understood", problems=problems)
    return found


def fetched(issuer: str) -> Any:
    """The keys of a provider, by its configuration. Raises OSError, ValueError for what is none."""
    import httpx2

    try:
        with httpx2.Client(timeout=10.0, follow_redirects=False) as http:
            told = _document(http, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if told.get("issuer") != issuer:
                raise ValueError(f"it calls itself {str(told.get('issuer'))[:100]!r}")
            place = str(told.get("jwks_uri"))
            if not place.startswith("https://"):
                raise ValueError(f"its keys are at {place[:100]!r}")
            return _document(http, place)
    except httpx2.HTTPError as error:
        raise OSError(str(error)) from error


def _document(http: Any, url: str) -> dict[str, Any]:
    data = bytearray()
    with http.stream("GET", url) as answer:
        answer.raise_for_status()
        for piece in answer.iter_bytes():
            data += piece
            if len(data) > _MOST:
                raise ValueError("it is too long")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("it is no table")
    return found


class Issuer:
    """One provider: its keys as they were fetched last, and who holds its tokens. ``fetch`` asks it, and may take long."""

    def __init__(self, provider: Provider, fetch: Callable[[str], Any] = fetched) -> None:
        self._provider, self._fetch = provider, fetch
        self._keys: KeySet | None = None
        self._wanted = asyncio.Event()
        self._claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": provider.issuer},
            aud={"essential": True, "value": provider.audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    async def run(self) -> None:
        """Fetch its keys again and again until it is cancelled; while it does not answer the last ones hold."""
        said = ""
        while True:
            try:
                keys = await in_thread(self._fetch, self._provider.issuer)
                self._keys = KeySet.import_key_set(keys)
                said, nap = "", AGAIN_SECONDS
            except (OSError, ValueError, TypeError, KeyError, RecursionError, JoseError) as error:
                nap = SOON_SECONDS
                if str(error) != said:
                    _log.warning("the keys of %s cannot be had: %s", self._provider.issuer, error)
                said = str(error)
            await asyncio.sleep(min(SOON_SECONDS, nap))
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(nap - SOON_SECONDS, 0.0)):
                    await self._wanted.wait()

    def caller(self, text: str) -> Caller | None:
        """Who holds a token, None for one that is not to be believed, is too old, or that no rule fits."""
        if self._keys is None or text.count(".") != 2:
            return None
        try:
            token = jwt.decode(text, self._keys, algorithms=ALGORITHMS)
            kid = token.header.get("kid")
            if not isinstance(kid, str) and (kid is not None or len(self._keys.keys) != 1):
                return None  # one key need not be named, of several one must (OpenID Connect Core, 10.1)
            self._claims.validate(token.claims)
        except InvalidKeyIdError:
            self._wanted.set()  # a key of late
            return None
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return self._named(token.claims)

    def _named(self, claims: Mapping[str, Any]) -> Caller | None:
        subject, name = claims.get("sub"), claims.get(self._provider.name)
        rule = next((one for one in self._provider.rule if _fits(one, claims)), None)
        if rule is None or not isinstance(subject, str) or not subject:
            return None
        shown = next((one for one in (name, subject) if _plain(one)), "somebody")
        identity = f"oidc:{self._provider.issuer}#{subject}"
        return Caller(f"oidc:{shown}", frozenset(rule.verbs), rule.machines, identity=identity)


def _fits(rule: Rule, claims: Mapping[str, Any]) -> bool:
    """An address that its provider has not seen proven is what its holder says it is (OpenID Connect Core, 5.7)."""
    if rule.claim == "email" and claims.get("email_verified") not in (True, "true"):
        return False
    value = claims.get(rule.claim)
    return value == rule.value or (isinstance(value, list) and rule.value in value)


def _plain(text: object) -> bool:
    """Whether it can be shown as a name."""
    return isinstance(text, str) and text.isprintable() and 0 < len(text) <= _LONGEST_NAME

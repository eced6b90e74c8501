"""Ten thousand requests made up from the OpenAPI document, of which each is answered as the document says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_here import Served, machine, operation, serving

from tinamou.state import tokens
from tinamou.state.machines import free_port

SCHEMATHESIS = shutil.which("schemathesis", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
"""For each route and each caller; as many again and more are made from the rules of its fields."""
_ENDS = frozenset({"start", "stop", "fork", "rm"})
_VERBS = frozenset(tokens.VERBS) - {"host", "create"}
CALLERS: dict[str, tuple[frozenset[str], str, str]] = {
    "a guest": (_VERBS - _ENDS, "web", "web"),
    "a machine at rest": (_VERBS - {"rm"}, "rest", "rest"),
    "any name": (_VERBS - _ENDS, "*", ""),
    "none of these": (_ENDS | {"create"}, "fuzz-*", ""),
}
"""Which machines are asked for → verbs and machines of the token, and the name that every path has; made up where empty.

For those with a name no folder is fetched as an archive: / of a guest has /proc in it, which has no end."""


@pytest.fixture
def served(state: Path) -> Iterator[Served]:
    """A service with a real guest, and a machine at rest whose image is not there; by TLS: who has no token is nobody."""
    machine(state, "rest", image="nothing-of-that-name")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", f"{state}/key.pem", "-out", f"{state}/cert.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files], check=True, capture_output=True
    )
    tls = ["--listen", f"127.0.0.1:{free_port()}", "--tls-cert", f"{state}/cert.pem", "--tls-key", f"{state}/key.pem"]
    with serving(state, *tls) as found:
        found.address = tls[1].replace("127.0.0.1", "https://localhost")
        spec = {"name": "web", "memory": "128M", "net": [], "disk": [{"size": "8M"}], "display": {"type": "vnc"}}
        made = operation(found, found.ask("POST", "/v1/machines", {"spec": spec}))
        assert made["state"] == "done", made
        try:
            yield found
        finally:
            assert operation(found, found.ask("DELETE", "/v1/machines/web?force=true"))["state"] == "done"


def asked(served: Served, folder: Path, who: str) -> int:
    """How many requests were made; all were answered as the document says."""
    verbs, machines, name = CALLERS[who]
    (folder / "schemathesis.toml").write_text(
        f'[parameters]\n"path.name" = "{name}"\n"query.archive" = false\n' if name else ""
    )
    secret = tokens.create(who.replace(" ", "-"), verbs=sorted(verbs), machines=[machines])
    words = [f"{served.address}/v1/openapi.json", "--header", f"Authorization: Bearer {secret}"]
    words += ["--tls-verify", str(served.path.with_name("cert.pem"))]
    words += ["--checks", CHECKS, "--max-examples", str(EXAMPLES), "--seed", "1", "--no-shrink", "--continue-on-failure"]
    words += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "120", "--warnings", "off"]
    words += ["--exclude-path", "/v1/events"]  # a stream without an end
    command = [str(SCHEMATHESIS), "--config-file", "schemathesis.toml", "run", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    made = re.search(r"(\d[\d,]*) generated", done.stdout)
    assert made is not None, done.stdout[-3000:]
    return int(made[1].replace(",", ""))


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.timeout(7200)
@pytest.mark.skipif(SCHEMATHESIS is None, reason="schemathesis is not installed (pip install schemathesis)")
@pytest.mark.parametrize("who", [*CALLERS])
def test_whatever_is_asked_the_answer_is_documented(served, tmp_path, who):
    made = asked(served, tmp_path, who)
    print(f"\n{who}: {made} requests")
    assert made >= (2500 if EXAMPLES >= 60 else EXAMPLES)
    assert served.ask("GET", "/v1/me").status == 200

"""Where sandboxes come from and how they are reached: pools, checkpoints, a domain by TLS, a guest with accounts."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from e2b import Sandbox, SandboxException
from e2b_serving import Serving

from tinamou import Machine, machines
from tinamou.machine import pooled
from tinamou.operations import states
from tinamou.spec import load_spec
from tinamou.system.loop_thread import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Start the server with a table of templates, or another way."""
    servers = []

    def start(text="", **how):
        table = tmp_path / "templates.toml"
        table.write_text(text)
        servers.append(Serving(monkeypatch, table, **how))

    yield start
    for one in servers:
        one.end(signal.SIGKILL)
    for one in machines():
        Machine.open(one.name).remove(force=True)


def test_from_a_pool_and_a_checkpoint(served):
    with Machine(forkable=True, net=[]) as machine:
        machine.run("echo prepared >/root/a")
        machine.checkpoint("after-install")
    wait_for(pooled.create("web", 2, spec=load_spec({"image": "tiny", "net": []})))
    try:
        served('[base]\npool = "web"\n[prepared]\ncheckpoint = "after-install"\n[booted]\nimage = "tiny"\n')
        first, second = Sandbox.create(), Sandbox.create()
        assert first.commands.run("hostname").stdout != second.commands.run("hostname").stdout
        assert Sandbox.create("prepared").files.read("/root/a") == "prepared\n"
        same = Sandbox.create("booted", allow_internet_access=False)
        assert {first.sandbox_id, same.sandbox_id} & {one.name for one in machines()} == set(), "all but one are the pool's"
        for name in ("base", "prepared"):
            with pytest.raises(SandboxException, match="was decided"):
                Sandbox.create(name, allow_internet_access=False)
        for one in Sandbox.list().next_items():
            Sandbox.kill(one.sandbox_id)
    finally:
        pooled.remove("web")
        wait_for(states.remove("after-install", force=True))
    assert machines() == []


BY_TLS = """
from e2b import Sandbox

sandbox = Sandbox.create(request_timeout=240)
assert sandbox.commands.run("echo here").stdout == "here\\n"
sandbox.files.write("/root/a", "x")
assert sandbox.files.read("/root/a") == "x"
assert sandbox.get_host(8080).startswith(f"8080-{sandbox.sandbox_id}.sb.localhost")
assert sandbox.kill()
"""


def test_below_a_domain_by_tls(served, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=sb.localhost", "-addext", "subjectAltName=DNS:*.sb.localhost"]
    names += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*words, *names, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    served(domain=("sb.localhost", certificate, key))
    client = [sys.executable, "-c", BY_TLS]  # of its own: a process keeps the certificates it trusted first
    done = subprocess.run(client, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert machines() == []

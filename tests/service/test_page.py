"""The page: what it shows without a browser."""

from __future__ import annotations

import hashlib
import os
import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service_here import machine
from starlette.testclient import TestClient

from tinamou.errors import SpecError
from tinamou.service.app import application
from tinamou.service.metrics import Metrics
from tinamou.service.page.describing import parts, written
from tinamou.service.page.rendering import STATIC
from tinamou.service.shared import Service
from tinamou.spec import load_spec
from tinamou.state import tokens


@pytest.fixture
def client(state: Path) -> Iterator[TestClient]:
    with TestClient(application(Service()), base_url="https://localhost", follow_redirects=False) as client:
        yield client


def mark(client: TestClient, path: str = "/login") -> str:
    found = re.search(r'name="mark" value="([0-9a-f]{64})"', client.get(path).text)
    assert found
    return found[1]


def login(client: TestClient, *verbs: str) -> None:
    secret = tokens.create(f"page-{os.urandom(4).hex()}", verbs=verbs)
    done = client.post("/login", data={"mark": mark(client), "token": secret})
    assert done.status_code == 303, done.text
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie and "Secure" in cookie and "samesite=strict" in cookie.lower()


def test_a_browser_nobody_knows_is_sent_to_log_in(client):
    sent = client.get("/", headers={"accept": "text/html"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    assert client.get("/v1/machines", headers={"accept": "text/html"}).status_code == 401
    wrong = client.post("/login", data={"mark": mark(client), "token": "tnm_nothing"})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers


def test_every_page_is_held_to_rules(client, state):
    machine(state, "web")
    login(client, "*")
    for path in ("/", "/new", "/host", "/forks", "/operations", "/events", "/machines/web"):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "unsafe" not in policy.partition("style-src")[0]
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", answer.text), path
        assert 'lang="en"' in answer.text and "<h1>" in answer.text
    assert client.get("/machines/nobody").status_code == 404


def test_what_machines_are_called_is_text(client, state):
    machine(state, "web")
    entry = state / "machines/web/machine.json"
    whole = entry.with_name("whole")
    whole.write_text(entry.read_text().replace('"tiny"', '"<script>alert(1)</script>\\"\'&"'))
    whole.replace(entry)
    login(client, "*")
    deadline = time.monotonic() + 60
    while "alert" not in client.get("/").text:  # the list is what was seen at the last look
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for path in ("/", "/page/rows", "/machines/web"):
        text = client.get(path).text
        assert "&lt;script&gt;alert" in text and "<script>alert" not in text


def test_a_form_without_the_mark_does_nothing(client, state):
    machine(state, "web")
    login(client, "*")
    for data in ({}, {"mark": "0" * 64}, {"mark": mark(client)[::-1]}):
        assert client.post("/machines/web", data={"action": "rm", **data}).status_code == 403
        assert client.post("/new", data={"action": "create", **data}).status_code == 403
    sent = {"action": "rm", "mark": mark(client)}
    assert client.post("/machines/web", data=sent, headers={"origin": "https://evil.example"}).status_code == 403
    assert (state / "machines/web").exists()
    assert client.post("/machines/web", data=sent, headers={"origin": "https://localhost"}).status_code == 303


def test_a_token_shows_and_does_on_the_page_what_it_may(client, state):
    machine(state, "web")
    login(client, "ls", "show")
    shown = client.get("/machines/web").text
    assert "Remove" not in shown and ">Start<" not in shown and 'href="/new"' not in shown
    for path in ("/new", "/host", "/events", "/machines/web/lately"):
        assert client.get(path).status_code == 403, path
    for action in ("rm", "start", "snapshot"):
        assert client.post("/machines/web", data={"action": action, "mark": mark(client)}).status_code == 403
    assert client.post("/machines/web", data={"action": "nothing", "mark": mark(client)}).status_code == 422


def test_the_form_is_the_schema(client, state):
    names = {field.name for part in parts() for field in part.fields}
    assert {"name", "image", "cpu.count", "memory.size", "disk", "net", "boot.firmware", "qemu_args"} <= names
    form = {"name": "web", "cpu.count": "2", "memory.size": "1G", "net": "user\n{ type = 'user' }", "tpm.enabled": "false"}
    spec = load_spec(written({**form, "disk": '{ size = "1G" }', "limits.cpu": "1.5", "cmdline": "ignored"}))
    assert (spec.cpu.count, spec.memory.size.mib, len(spec.net), len(spec.disk), spec.limits.cpu) == (2, 1024, 2, 1, 1.5)
    with pytest.raises(SpecError, match="not understood"):
        written({"cpu.count": "two", "disk": "{ size = "})
    login(client, "*")
    shown = client.post("/new", data={"mark": mark(client), "image": "tiny", "cpu.count": "0x", "name": "<b>"})
    assert shown.status_code == 422 and "cpu.count" in shown.text and "<b>" not in shown.text


def test_what_a_form_advises_is_understood():
    with pytest.raises(SpecError) as refused:
        written({"disk": "{"})
    [advised] = re.findall(r"such as (.+)", refused.value.problems[0].fix)
    assert str(load_spec(written({"disk": advised})).disk[0].size) == "10G"


def test_what_is_wrong_with_a_machine_is_on_its_page(state, monkeypatch):
    machine(state, "web")
    service = Service()
    found = {
        "check": "guest_oom",
        "title": "The guest ran out of memory",
        "severity": "bad",
        "evidence": "<x>",
        "fix": "more",
    }
    every = [{"machine": name, **found, "title": f"{found['title']} {name}"} for name in ("web", "other", None)]

    async def now() -> list[dict[str, str]]:
        return every

    monkeypatch.setattr(service.findings, "now", now)
    monkeypatch.setattr(service.findings, "lately", lambda: every)
    with TestClient(application(service), base_url="https://localhost", follow_redirects=False) as client:
        login(client, "show")
        for path in ("/machines/web", "/machines/web/wrong"):
            text = client.get(path).text
            assert "out of memory web" in text and "&lt;x&gt;" in text and "<x>" not in text, path
            assert "memory other" not in text and "memory None" not in text, path
    with TestClient(application(service), base_url="https://localhost", follow_redirects=False) as client:
        login(client, "ls")
        assert client.get("/machines/web/wrong").status_code == 403


def test_what_a_machine_used_lately_is_drawn(client, state, monkeypatch):
    async def numbers(_: Metrics) -> dict[str, dict[str, Any]]:
        return {"web": {"lately": [(0.0, 50.0), (100.0, 25.0)]}}

    machine(state, "web")
    login(client, "*")
    assert client.get("/machines/web/lately").text.strip() == ""
    monkeypatch.setattr(Metrics, "numbers", numbers)
    shown = client.get("/machines/web/lately").text
    assert re.findall(r'points="(.*?)"', shown) == ["0,15 60,1", "0,8 60,12"]
    assert "Processor, now 100 %" in shown and "Memory of the host, now 25 %" in shown


def test_logging_out_needs_the_mark_too(client, state):
    login(client, "ls")
    assert client.post("/logout").status_code in (403, 422)
    assert client.post("/logout", data={"mark": mark(client)}).status_code == 303
    assert client.get("/", headers={"accept": "text/html"}).headers["location"] == "/login"


def test_what_others_wrote_is_what_they_published():
    listed = tomllib.loads((STATIC / "vendored.toml").read_text())["file"]
    for one in listed:
        assert hashlib.sha256((STATIC / one["name"]).read_bytes()).hexdigest() == one["sha256"], one["name"]
    own = {"icon.svg", "page.js", "sockets.js", "style.css", "vendored.toml", "xterm.LICENSE"}
    folders = tomllib.loads((STATIC / "vendored.toml").read_text())["folder"]
    for one in folders:
        folder, listing, count = STATIC / one["name"], hashlib.sha256(), 0
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            count += 1
            listing.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n".encode())
        assert (count, listing.hexdigest()) == (one["files"], one["sha256"]), one["name"]
    assert {path.name for path in STATIC.iterdir()} == own | {one["name"] for one in (*listed, *folders)}

"""The page: what it shows without a browser, and in Debian's Chromium from a machine's making to its removal."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service_here import machine, serving
from starlette.testclient import TestClient

from tinamou.errors import SpecError
from tinamou.service.app import application
from tinamou.service.page.describing import parts, written
from tinamou.service.page.rendering import STATIC
from tinamou.service.shared import Service
from tinamou.spec import load_spec
from tinamou.state import tokens

MINUTE = 60_000
CHROMIUM = shutil.which("chromium")


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
    for path in ("/", "/new", "/host", "/operations", "/events", "/machines/web"):
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
    assert client.get("/new").status_code == client.get("/host").status_code == client.get("/events").status_code == 403
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


def test_logging_out_needs_the_mark_too(client, state):
    login(client, "ls")
    assert client.post("/logout").status_code in (403, 422)
    assert client.post("/logout", data={"mark": mark(client)}).status_code == 303
    assert client.get("/", headers={"accept": "text/html"}).headers["location"] == "/login"


def test_what_others_wrote_is_what_they_published():
    listed = tomllib.loads((STATIC / "vendored.toml").read_text())["file"]
    for one in listed:
        assert hashlib.sha256((STATIC / one["name"]).read_bytes()).hexdigest() == one["sha256"], one["name"]
    own = {"icon.svg", "page.js", "style.css", "vendored.toml", "xterm.LICENSE"}
    assert {path.name for path in STATIC.iterdir()} == own | {one["name"] for one in listed}


@contextlib.contextmanager
def forwarded(path: Path) -> Iterator[int]:
    """A TCP port of this host that leads to a unix socket, as ``ssh -L`` makes one."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.socket(socket.AF_UNIX)
                there.connect(str(path))
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium: not in PATH (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def shot(page: Any, name: str) -> None:
    """A picture, kept where TINAMOU_PICTURES says."""
    if folder := os.environ.get("TINAMOU_PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.slow
@pytest.mark.vm
def test_in_a_browser(state, browser):
    with serving(state) as served, forwarded(served.path) as port:
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: dialog.accept())
        page.set_default_timeout(2 * MINUTE)
        try:
            page.goto(f"http://127.0.0.1:{port}/")
            page.keyboard.press("n")
            page.wait_for_url("**/new")
            _make(page)
            _use(page, port)
            _elsewhere(page, browser, port)
        except BaseException:
            shot(page, "failed")
            for one in served.ask("GET", "/v1/machines").json["machines"]:
                served.ask("DELETE", f"/v1/machines/{one['name']}?force=true&wait=30")
            raise
        page.goto(f"http://127.0.0.1:{port}/machines/web")
        page.get_by_role("button", name="Remove").click()
        page.wait_for_url(f"http://127.0.0.1:{port}/")
        page.locator("#machines tr[data-name=web]").wait_for(state="detached")
        assert faults == []


def _make(page: Any) -> None:
    page.get_by_label("name", exact=True).fill("web")
    page.locator("summary", has_text="memory guest").click()
    page.locator("[name='memory.forkable']").select_option("true")
    page.get_by_role("button", name="Show the plan").click()
    page.get_by_role("heading", name="What would be done").wait_for()
    assert "planner" in page.locator(".reasons").first.inner_text()
    shot(page, "1-plan")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/operations")
    page.locator(".state.done").first.wait_for()
    shot(page, "2-operations")


def _use(page: Any, port: int) -> None:
    page.goto(f"http://127.0.0.1:{port}/")
    page.locator("#machines .state.running").wait_for()
    page.get_by_role("link", name="web", exact=True).click()
    page.get_by_role("button", name="Attach").click()
    page.locator("#console-said", has_text="attached").wait_for()
    page.keyboard.type("\necho $((6*7))4\n")
    page.locator("#console .xterm-accessibility, #console .xterm-rows").get_by_text("424").first.wait_for()
    shot(page, "3-console")
    page.get_by_role("textbox", name="Command").fill("uname -m; exit 3")
    page.get_by_role("button", name="Run").click()
    page.locator("#ran", has_text="[3]").wait_for()
    assert page.locator("#ran").inner_text().startswith("x86_64")
    page.locator("#cpu", has_text="%").wait_for()
    page.get_by_label("Copies").fill("2")
    page.get_by_role("button", name="Fork").click()
    page.locator("section[aria-labelledby=forks-h] ul ul a").nth(1).wait_for()
    page.get_by_role("button", name="Pause").click()
    page.locator("#state.paused").wait_for()
    page.get_by_role("button", name="Resume").click()
    page.locator("#state.running").wait_for()
    shot(page, "4-machine")
    for copy in page.locator("section[aria-labelledby=forks-h] ul ul a").all_inner_texts():
        page.goto(f"http://127.0.0.1:{port}/machines/{copy}")
        page.get_by_role("button", name="Remove").click()
        page.wait_for_url(f"http://127.0.0.1:{port}/")


def _elsewhere(page: Any, browser: Any, port: int) -> None:
    """The other pages, in the dark and on a phone: nothing is wider than the screen."""
    phone = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    for path in ("", "new", "host", "operations", "events", "machines/web"):
        phone.goto(f"http://127.0.0.1:{port}/{path}")
        assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        shot(phone, f"5-phone-{path.replace('/', '-') or 'machines'}")
    phone.goto(f"http://127.0.0.1:{port}/events")
    phone.locator("#events li", has_text="create done").wait_for()
    phone.close()

"""The page in Debian's Chromium: a machine from its making to its removal, by mouse and keyboard; many machines at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_here import axe, chromium, faults, forwarded, shot
from service_here import machine, serving

pytestmark = pytest.mark.slow
MINUTE = 60_000


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def watched(page: Any) -> list[str]:
    """What goes wrong in a page's scripts, and against its policy."""
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
    page.on("dialog", lambda dialog: dialog.accept())
    page.set_default_timeout(4 * MINUTE)
    return said


def test_the_check_for_faults_finds_some(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_content("<html><body><button></button><img src='data:'></body></html>")
    assert {one.partition(":")[0] for one in faults(page, axe(tmp_path))} >= {"button-name", "html-has-lang", "image-alt"}


@pytest.mark.vm
@pytest.mark.timeout(1500)
def test_a_machine_from_its_making_to_its_removal(state, browser, tmp_path):
    source = axe(tmp_path)
    with serving(state) as served, forwarded(served.path) as port:
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        wrong = watched(page)
        home = f"http://127.0.0.1:{port}"
        try:
            page.goto(f"{home}/")
            page.keyboard.press("n")
            page.wait_for_url("**/new")
            assert faults(page, source) == []
            _make(page, home)
            _use(page)
            _look(page)
            _there_and_back(page)
            copies = _fork(page)
            _diagnose(page)
            assert faults(page, source) == []
            _elsewhere(browser, home, source)
            _remove(page, home, [*copies, "web"])
        except BaseException:
            shot(page, "failed")
            for one in served.ask("GET", "/v1/machines").json["machines"]:
                served.ask("DELETE", f"/v1/machines/{one['name']}?force=true&wait=30")
            raise
        assert wrong == []


def _make(page: Any, home: str) -> None:
    """From the form to a guest that boots, seen on its console."""
    page.get_by_label("name", exact=True).fill("web")
    for part, field, value in (("memory", "forkable", "true"), ("display", "type", "vnc")):
        page.locator(f"details:has([name='{part}.{field}']) > summary").click()
        page.locator(f"[name='{part}.{field}']").select_option(value)
    page.locator("[name=disk]").fill('{ size = "64M" }')
    page.get_by_role("button", name="Show the plan").click()
    page.get_by_role("heading", name="What would be done").wait_for()
    assert "planner" in page.locator(".reasons").first.inner_text()
    shot(page, "1-plan")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/operations")
    page.goto(f"{home}/")
    page.locator("#machines tr[data-name=web] .state.running").wait_for()
    page.get_by_role("link", name="web", exact=True).click()
    page.get_by_role("button", name="Attach").click()
    page.locator("#console-said", has_text="attached").wait_for()
    shot(page, "2-boots")
    _typed(page, "")
    shot(page, "3-console")


def _printed(page: Any, text: str) -> None:
    page.locator("#console .xterm-accessibility").get_by_text(text).first.wait_for()


def _typed(page: Any, command: str) -> None:
    """Type at the guest's prompt until it answers: while it boots nobody reads what is typed."""
    marked = f"{time.monotonic_ns() % 10_000_019}"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        page.keyboard.type(f"{command}\necho $(({marked}*3))\n" if command else f"\necho $(({marked}*3))\n")
        try:
            page.locator("#console .xterm-accessibility").get_by_text(str(int(marked) * 3)).first.wait_for(timeout=10_000)
            return
        except Exception as error:
            if "Timeout" not in type(error).__name__:
                raise
    raise AssertionError("the guest does not answer")


def _run(page: Any, command: str) -> str:
    """A command by the page's form; what it printed."""
    page.get_by_role("textbox", name="Command").fill(command)
    page.get_by_role("button", name="Run").click()
    page.locator("#ran", has_text="[").wait_for()
    return str(page.locator("#ran").inner_text())


DROPPED = """() => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["dropped here"], "dropped"));
  document.querySelector("[data-put]").dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
}"""
"""A file let go over the form that sends files."""


def _use(page: Any) -> None:
    """Commands and files; the keyboard is given back."""
    page.keyboard.press("Control+]")
    assert page.evaluate("document.activeElement.dataset.console") == "web"
    assert _run(page, "uname -m; exit 3").split() == ["x86_64", "[3]"]
    page.locator("input[type=file]").set_input_files({"name": "note", "mimeType": "text/plain", "buffer": b"from the page"})
    page.get_by_role("button", name="Send").click()
    page.locator("[data-put] [role=status]", has_text="13 bytes, checked").wait_for()
    assert _run(page, "cat /root/note").startswith("from the page")
    page.evaluate(DROPPED)
    page.locator("[data-put] [role=status]", has_text="12 bytes, checked").wait_for()
    assert _run(page, "cat /root/dropped").startswith("dropped here")
    page.locator("#lately figure", has_text="Memory of the host, now").wait_for()
    page.locator("#cpu", has_text="%").wait_for()


def _look(page: Any) -> None:
    """The guest's screen, and its keyboard."""
    page.get_by_role("button", name="Look").click()
    page.locator("#screen-said", has_text="shown").wait_for()
    page.wait_for_function("document.querySelector('#screen canvas')?.width >= 640")
    shot(page, "4-screen")
    page.keyboard.press("Control+]")
    assert page.evaluate("document.activeElement.dataset.screen") == "web"
    with page.context.expect_page() as opened:
        page.evaluate("open('/v1/machines/web/screenshot')")
    opened.value.wait_for_load_state()
    assert opened.value.evaluate("document.images[0].naturalWidth") >= 640
    opened.value.close()


def _ended(page: Any, action: str) -> None:
    """Press a button and wait for the end of what it began."""
    with page.expect_navigation(url="**ended=**"):
        page.get_by_role("button", name=action, exact=True).click()


def _there_and_back(page: Any) -> None:
    """A snapshot of a disk that was written to, and back to it."""
    assert "[0]" in _run(page, "printf first_ | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null")
    page.locator("section[aria-labelledby=snapshots-h] [name=name]").fill("clean")
    _ended(page, "Take a snapshot")
    assert "clean" in page.locator("section[aria-labelledby=snapshots-h] .tree").inner_text()
    assert "[0]" in _run(page, "printf second | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null")
    assert _run(page, "head -c 6 /dev/vda").startswith("second")
    assert page.get_by_role("button", name="Go back").count() == 0
    _ended(page, "Stop")
    page.locator("#state.stopped").wait_for()
    _ended(page, "Go back")
    shot(page, "5-reverted")
    _ended(page, "Start")
    page.locator("#state.running").wait_for()
    assert _run(page, "head -c 6 /dev/vda").startswith("first_")


def _fork(page: Any) -> list[str]:
    page.get_by_label("Copies").fill("3")
    _ended(page, "Fork")
    links = page.locator("section[aria-labelledby=forks-h] ul ul a")
    assert links.count() == 3
    shot(page, "6-forks")
    return list(links.all_inner_texts())


def _diagnose(page: Any) -> None:
    _ended(page, "Diagnose")
    result = page.locator("section[aria-labelledby=ops-h] details[open]").first
    result.wait_for()
    assert "findings" in result.inner_text() or "checks" in result.inner_text()
    shot(page, "7-diagnosed")


def _elsewhere(browser: Any, home: str, source: str) -> None:
    """The other pages, in the dark and on a phone: nothing is wider than the screen, and axe finds nothing."""
    for scheme in ("dark", "light"):
        phone = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        for path in ("", "new", "host", "forks", "operations", "events", "machines/web"):
            phone.goto(f"{home}/{path}")
            assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            assert faults(phone, source) == [], path
            shot(phone, f"8-{scheme}-{path.replace('/', '-') or 'machines'}")
        phone.goto(f"{home}/events")
        phone.locator("#events li", has_text="create done").wait_for()
        phone.close()


def _remove(page: Any, home: str, names: list[str]) -> None:
    for name in names:
        page.goto(f"{home}/machines/{name}")
        page.get_by_role("button", name="Remove").click()
        page.wait_for_url(f"{home}/")
        page.locator(f"#machines tr[data-name={name}]").wait_for(state="detached")


def test_two_hundred_machines(state: Path, browser: Any, tmp_path: Path) -> None:
    """Their page is small, painted soon, and brought up to date without being loaded anew; figures are printed."""
    for number in range(200):
        machine(state, f"machine-{number:03}")
    with serving(state) as served, forwarded(served.path) as port:
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        wrong, sizes = watched(page), {}
        page.on("response", lambda answer: sizes.__setitem__(answer.url.partition(str(port))[2], len(answer.body())))
        page.goto(f"http://127.0.0.1:{port}/", wait_until="load")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert page.locator("#machines tr").count() == 200
        whole = sum(size for path, size in sizes.items() if path != "/page/rows")
        assert whole < 250_000, sizes
        began = time.monotonic()
        machine(state, "machine-new")
        page.locator("#machines tr[data-name=machine-new]").wait_for()
        seen = time.monotonic() - began
        page.keyboard.press("/")
        page.keyboard.type("machine-19")
        page.wait_for_function("document.querySelectorAll('#machines tr:not([hidden])').length === 10")
        assert faults(page, axe(tmp_path)) == []
        print(f"\n200 machines: {whole} bytes {sizes}, first paint {paint:.0f} ms, a new one shown after {seen:.1f} s")
        shot(page, "9-two-hundred")
        assert wrong == []

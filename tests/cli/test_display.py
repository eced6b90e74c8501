"""Where a machine's screen is: a viewer becomes of the command, or the address is said and how to get there."""

from __future__ import annotations

import os

import pytest

from tinamou.cli import display

ADDRESS = "vnc+unix:///run/m/vnc.sock"


class Begun(Exception):
    """A program in this process' place: its path and arguments."""


@pytest.fixture
def desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(program: str, words: list[str]) -> None:
        raise Begun(program, words)

    monkeypatch.setattr(os, "execv", begun)
    monkeypatch.setattr(display.by_hand, "display", lambda name: ADDRESS)
    monkeypatch.setattr(display, "leave_the_line", lambda: None)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")


def have(monkeypatch: pytest.MonkeyPatch, *viewers: str) -> None:
    monkeypatch.setattr(display, "find_tool", lambda name: f"/usr/bin/{name}" if name in viewers else None)


@pytest.mark.usefixtures("desktop")
@pytest.mark.parametrize(
    ("viewers", "words"),
    [
        (("vncviewer",), ["vncviewer", "/run/m/vnc.sock"]),
        (("vncviewer", "remote-viewer"), ["remote-viewer", ADDRESS]),
    ],
)
def test_the_first_viewer_that_is_there_shows_it(
    monkeypatch: pytest.MonkeyPatch, viewers: tuple[str, ...], words: list[str]
) -> None:
    have(monkeypatch, *viewers)
    with pytest.raises(Begun) as begun:
        display.command("m")
    assert begun.value.args == (f"/usr/bin/{words[0]}", words)


@pytest.mark.usefixtures("desktop")
def test_without_a_viewer_or_a_desktop_the_address_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    have(monkeypatch)
    display.command("m")
    said = capsys.readouterr()
    assert (
        said.out == f"{ADDRESS}\n"
        and "no viewer is installed (virt-viewer, tigervnc-viewer); from your own: ssh" in said.err
    )
    have(monkeypatch, "remote-viewer")
    display.command("m", print=True)
    assert capsys.readouterr() == (f"{ADDRESS}\n", "")
    monkeypatch.delenv("DISPLAY")
    display.command("m")
    said = capsys.readouterr()
    assert said.out == f"{ADDRESS}\n" and "there is no desktop here" in said.err and "then vnc://localhost:5900" in said.err

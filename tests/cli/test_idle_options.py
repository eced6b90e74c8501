"""Options that would do nothing beside others are refused by name, before anything is started."""

from __future__ import annotations

import pytest
from typed import call


@pytest.mark.parametrize(
    ("options", "words", "idle"),
    [
        (["--no-wait"], ["true"], "--no-wait"),
        (["--no-wait", "-d"], ["true"], "--no-wait"),
        (["--no-wait", "--warm", "-d"], [], "--no-wait"),
        (["--no-wait", "--timeout", "5", "-d"], [], "--timeout"),
        (["--json"], ["true"], "--json"),
        (["--json", "-d"], ["true"], "--json"),
        (["--json"], [], "--json"),
        (["--time-limit", "5"], [], "--time-limit"),
        (["--time-limit", "5", "-d"], [], "--time-limit"),
    ],
)
def test_of_run(options: list[str], words: list[str], idle: str) -> None:
    done = call("run", *options, *(["--", *words] if words else []))
    said = done.stdout if "--json" in options else done.stderr
    assert (done.returncode, idle in said) == (110, True), done.stderr


@pytest.mark.parametrize(
    "options", [["--timeout", "5"], ["-d", "--timeout", "5"], ["-d", "--no-wait"], ["--no-wait"], ["-d", "--json"]]
)
def test_alone_they_do_something(options: list[str]) -> None:
    """The image that there is not is what keeps it from running."""
    done = call("run", *options, "no-such-image")
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 110) and "no-such-image" in said and "leave" not in said, said


def test_of_start() -> None:
    done = call("start", "nosuch", "--no-wait", "--timeout", "5")
    assert (done.returncode, "--timeout" in done.stderr) == (110, True)


@pytest.mark.parametrize("options", [["--seconds", "5"], ["--print", "--json"], ["--print", "--password"]])
def test_of_display(options: list[str]) -> None:
    done = call("display", "nosuch", *options)
    said = done.stdout if "--json" in options else done.stderr
    assert (done.returncode, f"{options[0]} would do nothing" in said) == (110, True), done.stderr


def test_of_trace() -> None:
    done = call("trace", "nosuch", "virtio_blk_*", "--json")
    assert (done.returncode, "--json would do nothing" in done.stdout) == (110, True)


def test_of_export() -> None:
    done = call("export", "nosuch", "file", "--to", "libvirt")
    assert (done.returncode, "tinamou convert nosuch --to libvirt" in done.stderr) == (110, True)


@pytest.mark.parametrize(
    "line",
    [
        "autostart m --delay -5",
        "run --timeout nan",
        "run --time-limit -1",
        "exec m --timeout=-1 -- true",
        "stop m --grace -3",
    ],
)
def test_times_are_not_below_zero(line: str) -> None:
    done = call(*line.split())
    assert (done.returncode, "Must be >= 0" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("option", [["--every", "5m"], ["--full"], ["--json"]])
def test_of_replicate(option: list[str]) -> None:
    done = call("replicate", "nosuch", "there", "--off", *option)
    assert (done.returncode, f"{option[0]} would do nothing" in done.stdout + done.stderr) == (110, True), done.stderr


def test_of_place() -> None:
    done = call("place", "nosuch.toml", "--host", "here", "--tree", "/nosuch")
    assert (done.returncode, "--host would do nothing" in done.stderr) == (110, True), done.stderr

"""The hosts that are kept: what is refused, what is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typed import call

from tinamou.errors import SpecError, StateError
from tinamou.fleet import hosts
from tinamou.fleet.hosts import Host

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIFGExSAPtlM0Q2VWUEEXV+Uubl3kBLhATW5rbDRRGXQ"
"""A public key; its fingerprint as ssh-keygen -l prints it is below."""
FINGERPRINT = "SHA256:aZfyTPhaupmWFA10ssB+FJqhERyJm5Gm3+gDodEkOPs"


def test_a_host_is_kept_and_forgotten(state: Path) -> None:
    far = Host("far", "192.0.2.7", KEY, user="joe", port=2222, command=("sudo", "tinamou"), identity="/home/joe/.ssh/k")
    hosts.add(far)
    hosts.add(Host("near", "2001:db8::7", KEY))
    assert hosts.find("far") == far
    assert [one.name for one in hosts.every()] == ["far", "near"]
    assert (state / "hosts.json").stat().st_mode & 0o777 == 0o600
    hosts.remove("far")
    with pytest.raises(StateError, match="no host far"):
        hosts.find("far")
    with pytest.raises(StateError, match="no host far"):
        hosts.remove("far")


def test_a_command_that_no_shell_would_take_is_refused_before_anybody_is_asked(state: Path) -> None:
    done = call("host", "add", "far", "192.0.2.7", "--command", "sudo 'tinamou")
    assert done.returncode == SpecError.code and not (state / "hosts.json").exists()
    assert '--command = "sudo \'tinamou": no command line: No closing quotation' in done.stderr


def test_a_name_is_taken_once(state: Path) -> None:
    hosts.add(Host("far", "192.0.2.7", KEY))
    with pytest.raises(StateError, match="already, at 192"):
        hosts.add(Host("far", "192.0.2.8", KEY))


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "-oProxyCommand=x"),
        ("name", "a b"),
        ("name", "*"),
        ("address", "-oProxyCommand=x"),
        ("address", "a b"),
        ("address", ""),
        ("user", "-l"),
        ("user", "a@b"),
        ("port", 0),
        ("port", 65536),
        ("port", True),
        ("key", "ssh-ed25519 AAAA\n* ssh-ed25519 " + "A" * 68),
        ("key", ""),
        ("command", ()),
        ("command", ("",)),
        ("identity", "k"),
    ],
)
def test_what_ssh_would_take_for_something_else_is_refused(state: Path, field: str, value: object) -> None:
    said = {"name": "far", "address": "192.0.2.7", "key": KEY, field: value}
    with pytest.raises(SpecError) as caught:
        hosts.add(Host(**said))  # type: ignore[arg-type]
    assert [problem.path for problem in caught.value.problems] == [field]
    assert hosts.every() == []


def test_a_file_is_believed_only_as_it_was_written(state: Path) -> None:
    hosts.add(Host("far", "192.0.2.7", KEY))
    path = state / "hosts.json"
    written = json.loads(path.read_text())
    written["hosts"]["far"]["address"] = "-oProxyCommand=x"
    path.write_text(json.dumps(written))
    with pytest.raises(StateError, match="hosts are not read"):
        hosts.every()
    path.write_text("[]")
    with pytest.raises(StateError, match="hosts are not read"):
        hosts.find("far")
    path.chmod(0o666)
    with pytest.raises(StateError, match="written to by others"):
        hosts.every()


def test_a_fingerprint_is_the_one_people_know() -> None:
    assert hosts.fingerprint(KEY) == FINGERPRINT
    with pytest.raises(ValueError, match="no public key"):
        hosts.fingerprint("ssh-ed25519")

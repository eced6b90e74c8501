"""Recognising why guests do not answer, in logs that real guests wrote (tests/guest/logs), and in none of a healthy one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinamou.guest.diagnose import Stage, cause_of, clean, diagnose, reached
from tinamou.guest.failure import not_ready

LOGS = Path(__file__).with_name("logs")


def log(name):
    return clean((LOGS / f"{name}.log").read_bytes())


@pytest.mark.parametrize(
    ("name", "stage", "cause", "fatal"),
    [
        ("bios-no-disk", Stage.FIRMWARE, "no-boot-device", True),
        ("bios-blank-disk", Stage.FIRMWARE, "no-boot-device", True),
        ("grub-rescue", Stage.FIRMWARE, "grub-rescue", True),
        ("uefi-no-disk", Stage.FIRMWARE, "uefi-shell", True),
        ("sb-unsigned", Stage.FIRMWARE, "secure-boot", True),
        ("sb-shim", Stage.FIRMWARE, "secure-boot", True),
        ("init-exits", Stage.KERNEL, "init-died", True),
        ("initrd-torn", Stage.KERNEL, "no-init", True),
        ("no-root-disk", Stage.KERNEL, "no-root-device", True),
        ("oom", Stage.USERSPACE, "oom", False),
        ("login", Stage.USERSPACE, "login", False),
    ],
)
def test_real_failures(name, stage, cause, fatal):
    text = log(name)
    assert reached(text) == stage
    found = cause_of(diagnose(text))
    assert found is not None
    assert (found.kind, found.fatal) == (cause, fatal)
    assert found.line in text
    assert found.meaning and found.fix


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: path.stem)
def test_cleaned_logs_are_plain(path):
    text = clean(path.read_bytes())
    assert all(character.isprintable() or character in "\n\t" for character in text)


def test_a_healthy_guest_gives_no_finding():
    text = (
        "[    0.000000] Linux version 6.1.0\n[    1.000000] Run /init as init process\n[    1.1] random: crng init done\n"
        "Welcome to Debian GNU/Linux 12 (bookworm)!\n[  OK  ] Reached target multi-user.target\n"
    )
    assert reached(text) == Stage.USERSPACE
    assert diagnose(text) == ()
    assert cause_of(()) is None


def test_a_failed_boot_entry_is_forgotten_when_another_worked():
    text = log("sb-unsigned") + "\n[    0.000000] Linux version 6.1.0\n"
    assert diagnose(text) == ()
    assert [finding.kind for finding in diagnose(log("sb-unsigned"), Stage.KERNEL)] == []


@pytest.mark.parametrize(
    "text",
    [
        "traps: app[77] general protection fault ip:55 sp:7f error:0 in app",
        "Gave up waiting for suspend/resume device",
        "sshd: Access denied for user",
        "the words Kernel panic alone",
        "Welcome to GRUB!",
    ],
)
def test_what_only_looks_like_a_failure(text):
    assert diagnose(text, Stage.USERSPACE) == ()
    assert reached(text) <= Stage.FIRMWARE


def test_a_login_prompt_without_an_agent_is_explained(tmp_path):
    (tmp_path / "serial.log").write_bytes(b"\r\nDebian GNU/Linux 12 web ttyS0\r\n\r\nweb login: ")
    error = not_ready(str(tmp_path), Stage.USERSPACE, reason="late", at={}, exit_status=None, ended=False)
    assert [finding.kind for finding in error.findings] == ["login"]
    assert "qemu-guest-agent" in error.fix
    assert error.evidence["the guest printed last"] == "web login:"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a\r\nb\r\r\n", "a\nb\n"),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07done", "red done"),
        (b"\x1b[01;01Hone\x1b[02;01Htwo", "\none\ntwo"),
        (b"50%\r100%\n", "50%\n100%\n"),
        (b"\x00\x08\xff\xfebell\x07", "bell"),
        (b"a\n\n\n\n\nb", "a\n\nb"),
    ],
)
def test_cleaning(raw, text):
    assert clean(raw) == text


def test_the_error_carries_what_the_logs_say(tmp_path):
    (tmp_path / "serial.log").write_bytes((LOGS / "init-exits.log").read_bytes())
    (tmp_path / "qemu.log").write_text("qemu-system-x86_64: warning: something\n")
    error = not_ready(
        str(tmp_path), Stage.KERNEL, reason="", at={Stage.QEMU: 0.03, Stage.KERNEL: 1.5}, exit_status=None, ended=False
    )
    assert error.what == "The guest does not answer: process 1 of the guest ended"
    assert "kernel 1.5 s" in error.why
    assert error.evidence["QEMU said"] == "qemu-system-x86_64: warning: something"
    assert error.evidence["kernel panic"].splitlines()[0].endswith("Attempted to kill init! exitcode=0x00000000")
    assert set(error.to_json()["evidence"]) >= {"recognised", "serial log", "the guest printed last"}


def test_the_error_without_any_log(tmp_path):
    error = not_ready(str(tmp_path), Stage.QEMU, reason="it was late", at={}, exit_status=1, ended=True)
    assert error.what == "The guest does not answer: QEMU ended with status 1: it was late"
    assert error.evidence == {}

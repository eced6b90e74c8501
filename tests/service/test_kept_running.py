"""A service that runs on: certificates that are replaced meanwhile, and what it says in systemd's journal."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tinamou.service import certificates, journal


def make(folder: Path, name: str, *, key: bool = True) -> None:
    """A certificate of that name and its key; without ``key`` the key of before stays, which does not fit."""
    aside = folder / f"{name}.key"
    words = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
    subprocess.run(["openssl", "req", *words, "-keyout", aside, "-out", folder / "new.pem"], check=True, capture_output=True)
    (folder / "new.pem").replace(folder / "cert.pem")
    if key:
        aside.replace(folder / "key.pem")


def seen(port: int, folder: Path) -> str:
    """The certificate a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 60) as plain, context.wrap_socket(plain) as one:
        (folder / "seen.der").write_bytes(one.getpeercert(binary_form=True) or b"")
    words = ["openssl", "x509", "-inform", "DER", "-in", folder / "seen.der", "-noout", "-subject"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.rpartition("=")[2].strip()


def test_a_replaced_certificate_is_shown_to_who_comes_then(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(certificates, "EVERY_SECONDS", 0.01)

    async def go() -> None:
        make(tmp_path, "first")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        context.load_cert_chain(cert, key)
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        looking = asyncio.ensure_future(certificates.renewed(cert, key, [context]))
        port = server.sockets[0].getsockname()[1]
        try:
            assert await asyncio.to_thread(seen, port, tmp_path) == "first"
            await asyncio.to_thread(make, tmp_path, "second", key=False)
            while "cannot be used" not in caplog.text:  # noqa: ASYNC110 (a log has no event)
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(seen, port, tmp_path) == "first"
            await asyncio.to_thread(make, tmp_path, "third")
            while await asyncio.to_thread(seen, port, tmp_path) != "third":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            looking.cancel()
            server.close()

    asyncio.run(asyncio.wait_for(go(), 120))


@pytest.fixture
def heard(tmp_path: Path) -> Any:
    """A journal that listens: what it hears, as fields."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "journal"))
        listener.settimeout(60)

        def fields() -> dict[str, str]:
            data, found = listener.recv(1 << 20), {}
            while data:
                name, _, rest = data.partition(b"\n")
                size = int.from_bytes(rest[:8], "little")
                found[name.decode()] = rest[8 : 8 + size].decode()
                assert rest[8 + size : 9 + size] == b"\n"
                data = rest[9 + size :]
            return found

        yield fields


@pytest.fixture
def logger(tmp_path: Path) -> Any:
    handler, found = journal.JournalHandler(str(tmp_path / "journal")), logging.getLogger("tinamou.service.journal")
    found.addHandler(handler)
    found.setLevel(logging.INFO)
    yield found
    found.removeHandler(handler)


def operation(**more: Any) -> dict[str, Any]:
    return {"id": "1" * 16, "verb": "start", "about": "web", "state": "done", "caller": "token:ci", "error": None, **more}


def test_operations_are_in_the_journal_by_their_fields(heard, logger):
    journal.ended(operation())
    said = heard()
    assert said["MESSAGE"] == "start web done" and said["PRIORITY"] == "6" and said["SYSLOG_IDENTIFIER"] == "tinamou"
    assert (said["TINAMOU_MACHINE"], said["TINAMOU_VERB"], said["TINAMOU_CALLER"]) == ("web", "start", "token:ci")
    journal.ended(operation(state="failed", error={"error": "no\nPRIORITY=0\nroom"}))
    said = heard()  # lines in a text make no fields
    assert (said["PRIORITY"], said["MESSAGE"]) == ("3", "start web failed: no\nPRIORITY=0\nroom")
    try:
        raise ValueError("odd")
    except ValueError:
        logger.exception("x" * 100_000)
    assert "ValueError: odd" in (said := heard())["TINAMOU_TRACE"] and len(said["MESSAGE"]) == 32 << 10


def test_a_journal_that_does_not_listen_keeps_nobody_from_working(tmp_path, logger):
    journal.ended(operation())


def test_whether_stderr_goes_to_the_journal(monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert not journal.heard_by_journal()
    mine = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{mine.st_dev}:{mine.st_ino}")
    assert journal.heard_by_journal()
    monkeypatch.setenv("JOURNAL_STREAM", f"{mine.st_dev}:{mine.st_ino + 1}")
    assert not journal.heard_by_journal()

"""A certificate that is replaced while the service runs is used by the connections that come after that."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterable
from pathlib import Path

__all__ = ["check", "renewed"]

EVERY_SECONDS = 10.0
"""How often the files are looked at."""

_log = logging.getLogger(__name__)


def check(certificate: Path | None, key: Path | None) -> None:
    """Raises OSError, ssl.SSLError for what no connection could be made with."""
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(str(certificate), str(key))


def _marks(certificate: Path, key: Path) -> tuple[tuple[int, int, int], ...]:
    """What tells one state of both files from another. Raises OSError."""
    found = [one.stat() for one in (certificate, key)]
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in found)


async def renewed(certificate: Path, key: Path, contexts: Iterable[ssl.SSLContext]) -> None:
    """Look after both files until it is cancelled; what cannot be used is said once, and the old one is used on."""
    every, said = [*contexts], ""
    used = _marks(certificate, key)
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            now = _marks(certificate, key)
            if now == used:
                continue
            check(certificate, key)  # apart: a context whose key does not fit is of no use any more
            for one in every:
                one.load_cert_chain(str(certificate), str(key))
        except (OSError, ssl.SSLError) as error:
            if str(error) != said:
                _log.warning("the new certificate cannot be used, the old one is used on: %s", error)
            said = str(error)
            continue
        used, said = now, ""
        _log.info("the certificate was replaced: %s", certificate)

"""Making a TPM: its keys, and the certificates this host's own authority signs for them.

The authority's key and certificate are in ``STATE/tpm-ca``, made with the first TPM. Source: swtpm_setup(8),
swtpm-localca.conf(5).
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from tinamou.blueprint import SetUpTpm
from tinamou.errors import PrepareError
from tinamou.system.closing import Closing
from tinamou.system.exec import find_tool, run
from tinamou.system.paths import state_dir
from tinamou.system.replaced import replace_text

__all__ = ["set_up"]

_CERTIFICATES = ("--create-ek-cert", "--create-platform-cert", "--lock-nvram")


def set_up(step: SetUpTpm) -> None:
    """Make the TPM in one go, unless the machine has it already: a half-made one is never used. Raises PrepareError.

    One that came with a backup or a snapshot is handed to the user id its emulator now runs under.
    """
    folder = Path(step.path)
    if not folder.exists():
        _make(folder)
    if step.owner is not None:
        for path in (*folder.iterdir(), folder):
            _hand_over(path, step.owner)


def _hand_over(path: Path, owner: int) -> None:
    """Give a file to its new user; one that has another name somewhere is none of ours, whoever made it."""
    with Closing(os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)) as held:
        status = os.fstat(held)
        plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if status.st_uid != owner and (plain or stat.S_ISDIR(status.st_mode)):
            os.chown(f"/proc/self/fd/{held}", owner, owner)


def _make(folder: Path) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    settings = _authority()
    whose = ("--vmid", folder.parent.name)  # its certificate says which machine it was made for
    words = ["swtpm_setup", "--tpm2", "--tpmstate", str(part), *_CERTIFICATES, *whose, "--config", str(settings)]
    run(words, timeout=120)
    for path in part.iterdir():
        path.chmod(0o600)
    part.rename(folder)


def _authority() -> Path:
    """The settings of the authority that signs; swtpm_localca makes its key with the first certificate."""
    folder = state_dir() / "tpm-ca"
    folder.mkdir(mode=0o700, exist_ok=True)
    tool = find_tool("swtpm_localca")
    if tool is None:
        raise PrepareError(
            "a TPM cannot be given its certificates", why="swtpm_localca is missing", fix="install swtpm-tools"
        )
    keys = {"signingkey": "signkey.pem", "issuercert": "issuercert.pem", "certserial": "certserial"}
    places = [f"statedir = {folder}", *(f"{key} = {folder / name}" for key, name in keys.items())]
    _write(folder / "localca.conf", places)
    _write(folder / "localca.options", [f"--platform-{key} {value}" for key, value in _PLATFORM.items()])
    config, options = folder / "localca.conf", folder / "localca.options"
    asked = {"create_certs_tool": tool, "create_certs_tool_config": config, "create_certs_tool_options": options}
    lines = [*(f"{key} = {value}" for key, value in asked.items()), "active_pcr_banks = sha256"]
    return _write(folder / "setup.conf", lines)


_PLATFORM = {"manufacturer": "QEMU", "version": "1", "model": "tinamou"}


def _write(path: Path, lines: list[str]) -> Path:
    replace_text(path, "\n".join([*lines, ""]))
    return path

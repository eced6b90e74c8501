"""Keys of the user's own for Secure Boot: enrolled into a machine's variable store, and made.

Source: virt-fw-vars(1) of virt-firmware; the owner's GUID only says which tool wrote an entry.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tinamou.blueprint import EnrollKeys
from tinamou.errors import PrepareError
from tinamou.system.exec import CommandError, run

__all__ = ["enroll", "make_keys"]

_OWNER = "5c3ee4fb-9a26-4a0e-8c4f-6f9d2b6f53c1"
_OPTIONS = {"PK": "--set-pk", "KEK": "--add-kek", "db": "--add-db"}
_DAYS = "3650"
_MEANINGS = {"PK": "platform key", "KEK": "key exchange key", "db": "signing key"}


def enroll(step: EnrollKeys) -> None:
    """Make the store in one go, unless the machine has it already: the guest may have changed it since. Raises OSError."""
    path = Path(step.path)
    if path.exists():
        return
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    words = [word for variable, file in step.keys for word in (_OPTIONS[variable], _OWNER, file)]
    run(["virt-fw-vars", "-i", step.template, "-o", str(part), *words, "--sb"], timeout=120)
    part.chmod(0o600)
    if step.owner is not None:
        os.chown(part, step.owner, step.owner)
    part.rename(path)


def make_keys(folder: Path) -> list[Path]:
    """A platform key, a key exchange key and a signing key, each with a certificate of its own that ends in ten years.

    What ``db.key`` signs (sbsign) is started by machines that have ``db.pem`` enrolled. Raises PrepareError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True)
        return _keys_in(folder)
    except FileExistsError as error:
        raise PrepareError(f"{folder} is there already", fix="name a folder that is not, its keys may be in use") from error
    except FileNotFoundError as error:
        raise PrepareError("keys cannot be made", why=str(error), fix="apt-get install openssl") from error
    except (OSError, CommandError) as error:
        raise PrepareError("keys cannot be made", why=str(error)) from error


def _keys_in(folder: Path) -> list[Path]:
    """All of them, in a folder that is gone again where one cannot be made: a part would be taken for keys in use."""
    made = []
    try:
        for name, meaning in _MEANINGS.items():
            key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
            words = ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", _DAYS]
            words += ["-subj", f"/CN=tinamou {meaning} of {os.uname().nodename}/"]
            run([*words, "-keyout", str(key), "-out", str(certificate)])
            key.chmod(0o600)
            made += [key, certificate]
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return made

"""What a user can say about a Windows in the guest, and how its setup is to answer itself."""

from __future__ import annotations

from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass, fields
from tinamou.parts.seed import bad_keys

__all__ = ["WindowsSpec"]

_LANGUAGE = r"[a-z]{2,3}(-[A-Za-z]{4})?(-[A-Z]{2})?"
_KEY = r"([0-9A-Z]{5}-){4}[0-9A-Z]{5}"
_USER = r'(?!NONE$)[^"/\\\[\]:;|=,+*?%<>@\x00-\x1f]{1,20}'


@dataclass(frozen=True)
class WindowsSpec:
    """Windows as a guest. With ``user`` the setup answers itself, and what follows that field says how."""

    virtio: bool = option(False, "it has the drivers for virtio already: disks and cards are on virtio from the start")
    drivers: str = option("", "the image virtio-win.iso: a disc the guest sees; the setup takes drivers from it")
    user: str = option(
        "",
        "an administrator to create: the setup asks nothing then",
        pattern=_USER,
        hint='1 to 20 characters, none of " / \\ [ ] : ; | = , + * ? % < > @',
    )
    password_file: str = option("", "a file with the user's password in its first line; read when the answers are written")
    edition: str = option(
        "",
        "what is installed from the disc, by its name there (Windows 11 Pro, Windows Server 2022 SERVERSTANDARD) or number",
    )
    product_key: str = option(
        "", "the key, where the edition needs one", pattern=_KEY, hint="five times five of A-Z and 0-9"
    )
    locale: str = option("en-US", "language and formats", pattern=_LANGUAGE, hint="write for example de-DE")
    keyboard: str = option("", "the keyboard, as 0409:00000409 or a language; that of locale when left out")
    timezone: str = option("UTC", "the time zone under the name Windows has for it: W. Europe Standard Time")
    agent: bool = option(True, "install the guest agent that is on the disc of drivers")
    ssh: bool = option(False, "install Windows' own OpenSSH server, which lets the machine's key and ssh_keys in")
    ssh_keys: tuple[str, ...] = option((), "public keys that may log in as administrators")
    firstboot: tuple[str, ...] = option((), "commands of PowerShell run once, in order, when the first user is there")

    def problems(self) -> list[Problem]:
        """Answers to a setup that asks; a user without a password."""
        if self.user and not self.password_file:
            return [Problem("password_file", None, "the user needs a password", "name a file that has it")]
        if self.user:
            return [*self._too_long(), *self._unserved(), *bad_keys("ssh_keys", self.ssh_keys)]
        answers = {"virtio": "", "drivers": "", "user": ""}
        given = [one.name for one in fields(self) if one.name not in answers and getattr(self, one.name) != one.default]
        reason = "it is an answer to the setup, which asks as long as no user is named"
        return [Problem(name, str(getattr(self, name)), reason, 'add user = "…", or leave it out') for name in given]

    def _unserved(self) -> list[Problem]:
        reason = "who may log in by ssh needs its server"
        return [Problem("ssh_keys", list(self.ssh_keys), reason, "set ssh = true")] if self.ssh_keys and not self.ssh else []

    def _too_long(self) -> list[Problem]:
        return [
            Problem(f"firstboot[{number}]", text, "not a line", "write one line, or name a script on a share or disc")
            for number, text in enumerate(self.firstboot)
            if not text.strip() or "\n" in text or "\r" in text
        ]

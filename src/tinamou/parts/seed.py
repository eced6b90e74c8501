"""The first-boot seed of a guest: cloud-init NoCloud documents, built from a few requests and the user's own user-data.

Sources: the cloud-init reference (NoCloud, user-data formats, merging, network configuration version 2). The documents
are YAML written as JSON, which YAML contains, so no YAML library is needed to write them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from tinamou.digest import sha256
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.ignition import combustion_problems, ignition_problems
from tinamou.parts.user_data import kind_of, problems_of, without_envelope

__all__ = ["MACHINE_KEY", "Agent", "FixedAddress", "SeedSpec", "bad_keys", "documents"]

Agent = Literal["install", "start", "leave", "none"]

MACHINE_KEY = "@MACHINE_KEY@"
"""Stands for the machine's own public key, which is made after the plan and put in its place when the seed is written."""

_CLOUD_CONFIG = "#cloud-config\n"
_KEY = (
    r"(?:\S+ )?(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-\S+|sk-\S+@openssh\.com|ssh-\S+-cert-v01@openssh\.com) [A-Za-z0-9+/]+=*"
    r"(?:[ \t][^\x00-\x08\x0a-\x1f\x7f]*)?"
)
_USER = r"[a-z_][a-z0-9_-]{0,31}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"

_APPEND = "list(append)+dict(no_replace,recurse_list)+str()"
"""How our document joins the user's: his values stay, lists grow, deeper tables are joined likewise."""

_START_AGENT = (
    "systemctl start qemu-guest-agent.service 2>/dev/null || rc-service qemu-guest-agent start 2>/dev/null"
    " || service qemu-guest-agent start || true"
)


_NEW_MACHINE_ID = [
    *("cloud-init-per", "instance", "tinamou-machine-id", "sh", "-c"),
    "rm -f /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup || dbus-uuidgen --ensure=/etc/machine-id",
]
"""Once for each instance, before the network is used (source: the cloud-init reference, Bootcmd; machine-id(5))."""


@dataclass(frozen=True)
class SeedSpec:
    """What a guest should find at its first boot."""

    user: str = option("", "a user to create, who may become root without a password; empty: the image's own")
    ssh_keys: tuple[str, ...] = option((), "public keys that may log in, beside the machine's own")
    hostname: str = option("", "the guest's host name; the machine's name when left out")
    packages: tuple[str, ...] = option((), "packages to install at the first boot")
    user_data: str = option("", "a document of your own in any form cloud-init takes; it is joined with this one")
    ignition: str = option("", "an Ignition configuration (JSON), for Fedora CoreOS, Flatcar; it gets the machine's key too")
    combustion: str = option("", "a Combustion script, for openSUSE MicroOS; it is passed on as it is")
    password_hash: str = option("", "crypt(5) hash of the user's password (openssl passwd -6); none: no password works")
    shell: str = option("", "the user's shell; the image's default when left out")
    agent: Agent = option(
        "start",
        "install the guest agent (needs a package mirror), only start it, leave it alone; "
        "none: nobody waits for one, and the guest gets no first-boot configuration but what is asked for here",
    )
    locale: str = option("", "locale to generate and set; as the image has it when left out")
    timezone: str = option("", "time zone, Europe/Berlin; as the image has it when left out")

    def problems(self) -> list[Problem]:
        """All that cloud-init would refuse or, worse, skip with a warning nobody reads."""
        theirs = problems_of(self.user_data, "user_data") if self.user_data else ()
        ignition = ignition_problems(self.ignition, "ignition") if self.ignition else ()
        combustion = combustion_problems(self.combustion, "combustion") if self.combustion else ()
        return [*self._bad_names(), *self._bad_secrets(), *theirs, *ignition, *combustion]

    def _bad_names(self) -> Iterator[Problem]:
        if self.user and not re.fullmatch(_USER, self.user):
            yield Problem("user", self.user, "not a user name", "lower-case letters, digits, - and _, at most 32")
        if self.hostname and not (re.fullmatch(_HOST, self.hostname) and len(self.hostname) <= 253):
            yield Problem("hostname", self.hostname, "not a host name", "letters, digits and -, at most 63 a label")

    def _bad_secrets(self) -> Iterator[Problem]:
        yield from bad_keys("ssh_keys", self.ssh_keys)
        if self.password_hash and not re.match(r"\$(?:y|6|5|2[aby]|1)\$", self.password_hash):
            fix = "make a hash with: openssl passwd -6"
            yield Problem("password_hash", None, "not a crypt(5) hash; a plain password is not stored", fix)
        if self.password_hash and not self.user:
            yield Problem("password_hash", None, "a password needs a user", "name one: user = …")


def bad_keys(path: str, keys: Iterable[str]) -> Iterator[Problem]:
    """Which are no public keys of ssh, one line each."""
    yield from (_bad_key(f"{path}[{n}]", key) for n, key in enumerate(keys) if not re.fullmatch(_KEY, key.strip()))


def _bad_key(path: str, key: str) -> Problem:
    if "PRIVATE KEY" in key:
        return Problem(path, None, "this is a private key", "give the public one (the file that ends in .pub)")
    return Problem(path, key[:40], "not a public ssh key", "one line as in ~/.ssh/id_ed25519.pub")


@dataclass(frozen=True)
class FixedAddress:
    """An interface's address with its prefix length, ``10.0.0.5/24``, the gateway and the name servers that go with it."""

    address: str
    gateway: str = ""
    dns: tuple[str, ...] = ()


def documents(
    seed: SeedSpec,
    name: str,
    macs: Mapping[str, str],
    fixed: Mapping[str, FixedAddress] | None = None,
    *,
    renew: bool = False,
) -> dict[str, str]:
    """The files of a NoCloud seed, by name: ``meta-data``, ``user-data``, ``network-config``.

    ``name`` is the machine's; ``macs`` are the addresses of its interfaces by the names they get in the guest; each has
    DHCP, or what ``fixed`` has under its name. The same arguments give the same documents; the instance id changes with
    the contents, so that cloud-init acts on a changed seed. ``renew`` is for a disk that was another machine's: what that
    one was known by is made anew where cloud-init does not do so.
    """
    user_data = _user_data(seed, renew)
    network = _document(_network(macs, fixed or {}))
    host = seed.hostname or _host_name(name)
    digest = sha256("\0".join((name, host, user_data, network)).encode()).hexdigest()
    meta = {"instance-id": f"iid-{digest[:16]}", "local-hostname": host}
    return {"meta-data": _document(meta), "user-data": user_data, "network-config": network}


def _document(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=1) + "\n"


def _host_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", name.partition("~")[0]).strip("-")[:63].rstrip("-") or "guest"


def _network(macs: Mapping[str, str], fixed: Mapping[str, FixedAddress]) -> Mapping[str, object]:
    # Matching by name pattern breaks cloud-init 22.4; by address, with a name to set, it works everywhere.
    ethernets = {
        name: {"match": {"macaddress": mac.lower()}, "set-name": name, **_way(fixed.get(name))} for name, mac in macs.items()
    }
    return {"version": 2, "ethernets": ethernets}


def _way(fixed: FixedAddress | None) -> dict[str, object]:
    """How one interface comes to its address."""
    if fixed is None:
        return {"dhcp4": True}
    found: dict[str, object] = {"dhcp4": False, "addresses": [fixed.address]}
    if fixed.gateway:
        found["gateway6" if ":" in fixed.gateway else "gateway4"] = fixed.gateway
    if fixed.dns:
        found["nameservers"] = {"addresses": list(fixed.dns)}
    return found


def _config(seed: SeedSpec) -> dict[str, object]:
    config: dict[str, object] = {"locale": seed.locale or "false", "manage_etc_hosts": "localhost", "ssh_pwauth": False}
    if seed.timezone:
        config["timezone"] = seed.timezone
    if seed.user:
        config["users"] = [_account(seed)]
    else:
        config["ssh_authorized_keys"] = _keys(seed)
    if seed.user == "root":
        config["disable_root"] = False
    packages = [*seed.packages, *(["qemu-guest-agent"] if seed.agent == "install" else [])]
    if packages:
        config["package_update"] = True
        config["packages"] = packages
    if seed.agent not in ("leave", "none"):
        config["runcmd"] = [["sh", "-c", _START_AGENT]]
    return config


def _account(seed: SeedSpec) -> dict[str, object]:
    account: dict[str, object] = {"name": seed.user, "lock_passwd": not seed.password_hash}
    account["ssh_authorized_keys"] = _keys(seed)
    if seed.password_hash:
        account["passwd"] = seed.password_hash
    if seed.shell:
        account["shell"] = seed.shell
    if seed.user != "root":
        account["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
    return account


def _keys(seed: SeedSpec) -> list[str]:
    return [MACHINE_KEY, *(key.strip() for key in seed.ssh_keys)]


def _user_data(seed: SeedSpec, renew: bool) -> str:
    ours = _CLOUD_CONFIG + _document({**_config(seed), **({"bootcmd": [_NEW_MACHINE_ID]} if renew else {})})
    if not seed.user_data.strip():
        return ours
    theirs = seed.user_data
    boundary = f"==tinamou-{sha256(theirs.encode()).hexdigest()[:16]}=="
    parts = (_their_part(theirs), _part("text/cloud-config", ours, {"X-Merge-Type": _APPEND}))
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f'Content-Type: multipart/mixed; boundary="{boundary}"\nMIME-Version: 1.0\n\n{body}--{boundary}--\n'


def _their_part(text: str) -> str:
    kind = kind_of(text)
    return without_envelope(text).rstrip("\n") if kind == "mime" else _part(kind or "text/plain", text, {})


def _part(kind: str, text: str, headers: Mapping[str, str]) -> str:
    encoding, content = ("7bit", text) if text.isascii() else ("base64", _base64(text))
    lines = {"Content-Type": f'{kind}; charset="utf-8"', "MIME-Version": "1.0", "Content-Transfer-Encoding": encoding}
    head = "".join(f"{name}: {value}\n" for name, value in {**lines, **headers}.items())
    return f"{head}\n{content}\n"


def _base64(text: str) -> str:
    import base64

    return "\n".join(re.findall(".{1,76}", base64.b64encode(text.encode()).decode()))

"""The verb ``serve``: the service, in the foreground until it is asked to end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter
from tinamou.cli.loop import run_until_told
from tinamou.errors import Problem, SpecError, TinamouError

if TYPE_CHECKING:
    from tinamou.service.server import Listening


def command(
    *,
    socket: Path | None = None,
    mode: str = "0600",
    listen: str = "",
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    name: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    oidc: Path | None = None,
    e2b: str = "",
    e2b_domain: str = "",
    e2b_templates: Path | None = None,
    e2b_most: int | None = None,
    units: Path | None = None,
) -> int:
    """Serve machines to programs and browsers: an API, a page, metrics.

    It keeps nothing of its own: end, kill and start it whenever you like. On the unix socket the kernel says who calls:
    you and root may do all, and with root's machines others what tinamou allow gave them. On TCP, which is TLS alone,
    tokens say it: tinamou token create.

    Parameters
    ----------
    socket
        The unix socket; tinamou.sock where tinamou keeps what is gone after a reboot, when left out.
    mode
        Who may connect to it, as for chmod; what they may do is another matter.
    listen
        Serve HOST:PORT as well.
    tls_cert
        The certificate for that, with its chain, in PEM.
    tls_key
        Its key.
    name
        A name or address by which others reach it. May be repeated.
    oidc
        Whose signed tokens are believed beside those of tinamou token, and what they are for, in TOML (OpenID Connect).
    e2b
        Serve E2B's own clients at HOST:PORT as well: sandboxes that are machines.
    e2b_domain
        The domain below which sandboxes are reached there, by TLS; without one clients are told E2B_SANDBOX_URL.
    e2b_templates
        What the names of templates stand for, in TOML; base alone, which is the tiny guest, when left out.
    e2b_most
        How many sandboxes there may be at a time; 100 when left out.
    units
        Only write systemd units into this folder: tinamou.socket, and tinamou.service that it starts.
    """
    try:
        from tinamou.service.agents.e2b.serving import Address
        from tinamou.service.server import Listening, serve
    except ImportError as error:
        fix = "install them: pip install 'tinamou[service]'"
        raise TinamouError("the libraries of the service are not installed", why=str(error), fix=fix) from None
    from tinamou.system.paths import run_dir

    place = (socket or run_dir() / "tinamou.sock").absolute()
    certificate, key = tls_cert and tls_cert.absolute(), tls_key and tls_key.absolute()
    agents = address(e2b, "--e2b")
    most = 100 if e2b_most is None else e2b_most
    sandboxes = Address(agents, e2b_domain, e2b_templates and e2b_templates.absolute(), most) if agents else None
    if sandboxes is None and (e2b_domain or e2b_templates or e2b_most is not None):
        problem = Problem("--e2b", None, "is not given", "say where E2B's clients are served: 127.0.0.1:3000")
        raise SpecError("the sandboxes cannot be served", problems=[problem])
    if (certificate or key) and not (listen or e2b_domain or units or os.environ.get("LISTEN_FDS")):
        fix = "say where TLS is served: --listen 0.0.0.0:8443, or leave --tls-cert and --tls-key out"
        raise SpecError("nothing is served by TLS", problems=[Problem("--listen", None, "is not given", fix)])
    listening = Listening(place, _mode(mode), address(listen), certificate, key, name, sandboxes, oidc and oidc.absolute())
    if units is not None:
        return _write_units(units, listening, listen, e2b)
    os.chdir("/")  # paths in descriptions are whole; what is not means the same whoever starts the service
    return run_until_told(serve(listening, lambda where: output.say(f"serving at {where}")))


def _write_units(folder: Path, listening: Listening, listen: str, e2b: str) -> int:
    from tinamou.service.units import units
    from tinamou.system import systemd

    words, agents = [*systemd.command(), "serve"], listening.e2b
    given = {
        "--listen": listen,
        "--tls-cert": listening.certificate,
        "--tls-key": listening.key,
        "--oidc": listening.oidc,
        "--e2b": e2b,
    }
    if agents is not None:
        given |= {"--e2b-domain": agents.domain, "--e2b-templates": agents.templates, "--e2b-most": str(agents.most)}
    words += [word for option, value in given.items() if value for word in (option, str(value))]
    words += [word for one in listening.names for word in ("--name", one)]
    assert listening.socket is not None
    for name, text in units(listening.socket, listening.mode, words, systemd.environment()).items():
        (folder / name).write_text(text)
        print(folder / name)
    return 0


def _mode(text: str) -> int:
    try:
        found = int(text, 8)
        if not found & ~0o777:
            return found
    except ValueError:
        pass
    problem = Problem("--mode", text, "not the rights of a file", "three octal digits, such as 0660")
    raise SpecError("the socket cannot be made so", problems=[problem])


def address(text: str, option: str = "--listen") -> tuple[str, int] | None:
    """HOST:PORT; None for nothing. Raises SpecError."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if host and port.isascii() and port.isdecimal() and int(port) < 1 << 16:
        return host.strip("[]"), int(port)
    problem = Problem(option, text, "not HOST:PORT", "for example 127.0.0.1:8443, or [::1]:8443")
    raise SpecError("nothing can be served there", problems=[problem])

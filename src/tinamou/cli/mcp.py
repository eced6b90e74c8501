"""The verb ``mcp``: machines as tools of a language model."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError, TinamouError

TOKEN = "TINAMOU_MCP_TOKEN"  # noqa: S105 (the name of a variable)


def command(
    *,
    listen: Annotated[str, Parameter(negative="")] = "",
    all_machines: Switch = False,
    host_access: Switch = False,
) -> None:
    """Serve machines as tools of a language model (MCP), on stdin and stdout.

    The machines a session makes are its own, and end with it unless kept. Over HTTP all clients share one session, and need
    a token: that of TINAMOU_MCP_TOKEN, or one that is printed on stderr.

    Parameters
    ----------
    listen
        Serve over HTTP at this address instead, 127.0.0.1:8765 for example; the path is /mcp.
    all_machines
        Let it use, change and discard every machine of this user, not only those it has made.
    host_access
        Let machines be given files, devices, ports and the network of this host: shares, disks and images by their paths,
        arguments of QEMU, forwards. Whoever uses it can then read and write what this user can.
    """
    try:
        from tinamou.service.agents.mcp.server import serve_http, serve_stdio
    except ImportError as error:
        fix = "install them: pip install 'tinamou[service]'"
        raise TinamouError("the libraries of the service are not installed", why=str(error), fix=fix) from None
    if not listen:
        run_until_done(serve_stdio(all_machines=all_machines, host_access=host_access))
        return
    host, port = _address(listen)
    run_until_done(
        serve_http(host, port, _token(f"http://{listen}/mcp"), all_machines=all_machines, host_access=host_access)
    )


def _address(text: str) -> tuple[str, int]:
    """Raises SpecError for what is no address of this host's own."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise SpecError(
            "the address is not understood", problems=[Problem("--listen", text, "not HOST:PORT", "write 127.0.0.1:8765")]
        )
    if host not in ("127.0.0.1", "::1", "[::1]", "localhost"):
        reason = "others could read the token on the way: there is no TLS here"
        fix = "listen on 127.0.0.1, and let ssh -L or a proxy with TLS lead there"
        raise SpecError("the address is not of this host alone", problems=[Problem("--listen", text, reason, fix)])
    return host.strip("[]"), int(port)


def _token(url: str) -> str:
    import secrets

    if token := os.environ.get(TOKEN, ""):
        return token
    token = secrets.token_hex(32)
    print(f"{url}\nAuthorization: Bearer {token}", file=sys.stderr, flush=True)
    return token

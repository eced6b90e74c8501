"""What an agent must be told so that a command runs as a login of its user would: account, environment, folder, rights."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tinamou.errors import GuestError
from tinamou.guest import execute
from tinamou.guest.channel import AgentRefusedError
from tinamou.guest.command import Command, no_folder, no_user, not_found
from tinamou.late import dataclass

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["Account", "Login", "NoShellError", "login"]

_PATHS = {
    True: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    False: "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games",
}
"""Of root, and of everybody else (source: Debian's login.defs, ENV_SUPATH and ENV_PATH)."""

_LOOK = """
me=$(id -u) user=${1:-$(id -u)}
find() {
    while IFS=: read -r name _ uid gid _ home shell; do
        case $user in "$name" | "$uid") echo "$name:$uid:$gid:$home:$shell"; return 0 ;; esac
    done
    return 1
}
{ [ -r /etc/passwd ] && find </etc/passwd; } || getent passwd "$user" 2>/dev/null | find || echo ::::
echo "$me"
for tool in setsid setpriv su; do
    command -v $tool >/dev/null 2>&1 || continue
    [ $tool != setpriv ] || setpriv --help 2>&1 | grep -q reuid && echo $tool
done
"""
"""Prints the account of the user of $1, or of the agent's own; the agent's number; which tools there are."""

_BEGIN = """
case $1 in
    */*) [ -f "$1" ] && [ -x "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
esac || { echo "$0x" >&3; exit 127; }
exec "$@" 3>&-"""
_IN_FOLDER = 'cd "$1" 2>/dev/null || { echo "$0d" >&3; exit 127; }; shift' + _BEGIN
_AT_HOME = 'cd "$1" 2>/dev/null; shift' + _BEGIN
"""Begin a command in the folder of $1; what failed is said on descriptor 3, behind the token of $0."""

_LOOK_SECONDS = 20.0


class NoShellError(GuestError):
    """The guest has no /bin/sh, which is needed for all that is more than running a program to its end."""


@dataclass(frozen=True)
class Account:
    """A user of the guest; ``me`` is the number the agent itself runs as, ``tools`` are those to change that."""

    name: str
    uid: str
    gid: str
    home: str
    shell: str
    me: str
    tools: tuple[str, ...]


@dataclass(frozen=True)
class Login:
    """How one command is begun: ``words`` and the whole environment for the agent; ``token`` marks what its shell says."""

    words: tuple[str, ...]
    env: Mapping[str, str]
    token: str

    def failed(self, command: Command, said: bytes) -> GuestError | None:
        """Why the command was not begun, by what its shell said; None when it was."""
        kind = said.decode(errors="replace").removeprefix(self.token)[:1] if said.startswith(self.token.encode()) else ""
        if kind == "d":
            return no_folder(command.cwd, "there is no such folder, or its user may not enter it")
        return not_found(command.argv[0], "no such command, or it may not be run") if kind == "x" else None


async def login(agent: Agent, command: Command, *, aloud: bool) -> Login:
    """How to begin the command; ``aloud`` says on its standard error what failed, else it is said on descriptor 3.

    Raises GuestError for a user the guest does not have, NoShellError.
    """
    who = agent.account if agent.account is not None and not command.user else await _account(agent, command.user)
    if not command.user:
        agent.account = who
    path = _PATHS[who.uid == "0"]
    env = {"HOME": who.home, "USER": who.name, "LOGNAME": who.name, "SHELL": who.shell, "PATH": path, **command.env}
    token = f"tinamou-{secrets.token_hex(16)}:"
    script = ("exec 3>&2; " if aloud else "") + (_IN_FOLDER if command.cwd else _AT_HOME)
    words = ("/bin/sh", "-c", script, token, command.cwd or who.home, *command.argv)
    if who.uid != who.me:
        words = _as(who, script, words)
    return Login(("setsid", *words) if "setsid" in who.tools else words, env, token)


def _as(who: Account, script: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """The words as another user than the agent's. Raises GuestError where the guest has no tool for that."""
    if "setpriv" in who.tools:
        return ("setpriv", "--reuid", who.uid, "--regid", who.gid, "--init-groups", *words)
    if "su" in who.tools:
        return ("su", "-m", "-s", "/bin/sh", "-c", script, "--", who.name, *words[3:])
    raise GuestError(f"The guest cannot run a command as {who.name}", why="it has neither setpriv nor su")


async def _account(agent: Agent, user: str) -> Account:
    try:
        done = await execute.run(agent, ["/bin/sh", "-c", _LOOK, "sh", user], timeout=_LOOK_SECONDS)
    except GuestError as error:
        if isinstance(error.__cause__, AgentRefusedError) and error.what.endswith("start /bin/sh"):
            raise NoShellError(error.what, why=error.why) from error
        raise
    account, me, *tools = [*done.text.split("\n"), ""]
    name, uid, gid, home, shell = account.split(":") if account.count(":") == 4 else [""] * 5
    if not name and user:
        raise no_user(user)
    return Account(name or "root", uid or me, gid or "0", home or "/", shell or "/bin/sh", me, tuple(tools))

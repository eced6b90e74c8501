"""The command line's verbs and options, as the library that parses it sees them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import cyclopts
from cyclopts import App, validators

from tinamou.cli.grammar import Group, Parameter, Verb
from tinamou.cli.verbs import ABOUT, GROUPS, USAGE, VERBS, module_of
from tinamou.version import __version__

__all__ = ["app"]


def _default(value: object) -> str | None:
    """A default as help shows it; nothing for one that only says that nothing was given."""
    if value in (None, False, "", ()):
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


app: App = App(
    name="tinamou",
    version=__version__,
    help=ABOUT,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=cyclopts.Parameter(show_default=_default),
)
for _verb, _help in VERBS.items():
    if _verb == "completion":
        continue
    _usage = {"usage": f"Usage: tinamou {_verb} {USAGE[_verb]}"} if _verb in USAGE else {}
    app.command(f"tinamou.cli.app:_{_verb}", name=_verb, help=_help, **_usage)


def __getattr__(name: str) -> Any:
    """``_VERB``: what the parser calls for a verb, loaded when it comes to it."""
    verb = name[1:]
    if name[:1] != "_" or verb not in VERBS:
        raise AttributeError(name)
    if verb not in GROUPS:
        return _told(module_of(verb).command)
    group: Group = module_of(verb).app
    below = App(name=verb, result_action="return_value")
    for one, function in group.verbs.items():
        below.command(_told(function), name=one, show=one not in group.hidden)
    if group.default:
        below.default(_told(group.default))
    return below


def _told(function: Verb) -> Verb:
    """The function, with its parameters described in the library's own words as well."""
    hints = get_type_hints(function, include_extras=True)
    function.__annotations__ = {name: _hint(hint) for name, hint in hints.items()}
    return function


def _hint(hint: Any) -> Any:
    if get_origin(hint) is not Annotated:
        return Annotated[hint, _SECONDS] if float in (hint, *get_args(hint)) else hint
    kind, *said = get_args(hint)
    parameters = [_parameter(one) for one in said if isinstance(one, Parameter)]
    return Annotated[(kind, *said, *parameters)]


def _not_below_zero(_: object, value: float | None) -> None:
    """Every option with a point in it is a length of time."""
    if value is not None and not value >= 0:  # nor what is no number (nan)
        raise ValueError("Must be >= 0.")


_SECONDS = cyclopts.Parameter(validator=_not_below_zero)


def _parameter(about: Parameter) -> cyclopts.Parameter:
    return cyclopts.Parameter(**about.said, validator=None if about.least is None else validators.Number(gte=about.least))


@app.command(name="completion", help=VERBS["completion"])
def completion(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> None:
    """Print a shell's completion script; docs/guides/install.md says where it belongs.

    Parameters
    ----------
    shell
        The shell: bash, zsh, fish or powershell.
    """
    print(app.generate_completion(shell=shell))

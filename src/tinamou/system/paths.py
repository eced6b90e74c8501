"""Where tinamou keeps things: one `Host` says it all, and several of them can live in one process."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tinamou.late import dataclass

__all__ = ["Host", "cache_dir", "image_dir", "run_dir", "state_dir", "this_host", "unit_dir"]


@dataclass(frozen=True)
class Host:
    """The folders of one tinamou, all absolute: machines (``state``), what can be made again (``cache``), what is gone after
    a reboot (``run``), systemd's unit files (``units``).

    ``with host.active():`` makes it the one that everything in the block, and what the block starts, is about.
    """

    state: Path
    cache: Path
    run: Path
    units: Path

    @classmethod
    def default(cls, environment: Mapping[str, str] | None = None) -> Host:
        """This user's, as the environment says: ``TINAMOU_STATE``, ``TINAMOU_CACHE``, ``TINAMOU_RUN``, ``TINAMOU_UNITS``.

        Without them /var/lib/tinamou, /var/cache/tinamou, /run/tinamou and /etc/systemd/system for root; else the folders of
        the XDG base directory specification, and of systemd.unit(5) for a user. A user without ``XDG_RUNTIME_DIR`` has
        ``run`` in the state directory: /tmp is everybody's.
        """
        root, said = os.geteuid() == 0, os.environ if environment is None else environment
        runtime = said.get("XDG_RUNTIME_DIR")

        def of(variable: str, system: str, user: str) -> Path:
            named = said.get(variable)
            return Path(named).absolute() if named else Path(system) if root else Path.home() / user

        return cls(
            of("TINAMOU_STATE", "/var/lib/tinamou", ".local/state/tinamou"),
            of("TINAMOU_CACHE", "/var/cache/tinamou", ".cache/tinamou"),
            of("TINAMOU_RUN", "/run/tinamou", f"{runtime}/tinamou" if runtime else ".local/state/tinamou/run"),
            of("TINAMOU_UNITS", "/etc/systemd/system", ".config/systemd/user"),
        )

    def environment(self) -> dict[str, str]:
        """The variables by which another process finds the same folders; none where it would anyway."""
        mine, plain = self._variables(), Host.default({})._variables()
        return {name: value for name, value in mine.items() if value != plain[name]}

    def _variables(self) -> dict[str, str]:
        folders = {"STATE": self.state, "CACHE": self.cache, "RUN": self.run, "UNITS": self.units}
        return {f"TINAMOU_{name}": str(path) for name, path in folders.items()}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Everything in the block is about this host."""
        mark = _active.set(self)
        try:
            yield
        finally:
            _active.reset(mark)


_SAYS = ("TINAMOU_STATE", "TINAMOU_CACHE", "TINAMOU_RUN", "TINAMOU_UNITS", "XDG_RUNTIME_DIR", "HOME")
_active: contextvars.ContextVar[Host | None] = contextvars.ContextVar("host", default=None)


def this_host() -> Host:
    """The active one; the user's own where none is."""
    if host := _active.get():
        return host
    said = tuple(map(os.environ.get, _SAYS))
    whole = all(one is None or one.startswith("/") for one in said)
    return (_known if whole else _found)(os.geteuid(), said)


def _found(*_said: object) -> Host:
    return Host.default()


_known = functools.lru_cache(maxsize=4)(_found)
"""The same, for as long as nothing it follows from is another."""


def state_dir() -> Path:
    """Machines, checkpoints, pools, networks."""
    return this_host().state


def cache_dir() -> Path:
    """What can be made again."""
    return this_host().cache


def image_dir() -> Path:
    """Built and downloaded guests, below the cache."""
    return cache_dir() / "images"


def run_dir() -> Path:
    """What is gone after a reboot."""
    return this_host().run


def unit_dir() -> Path:
    """Unit files of systemd."""
    return this_host().units

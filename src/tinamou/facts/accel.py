"""Which accelerators were tried on this host with this binary, and what happened."""

from __future__ import annotations

from tinamou.late import dataclass


@dataclass(frozen=True)
class Trial:
    """One accelerator tried: it ran a micro guest (``works``) or not, in ``milliseconds``, and the evidence.

    ``what`` happened, ``why`` it did not work and the ``fix`` are sentences for the user. ``needs`` names what must
    be dropped or added for it to start (for example ``-arch-capabilities`` on the CPU model).
    """

    accel: str
    works: bool
    milliseconds: float
    what: str
    why: str = ""
    fix: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class AccelFacts:
    """The trials for one guest architecture, best accelerator first."""

    arch: str
    trials: tuple[Trial, ...]

    def best(self) -> Trial | None:
        """The first accelerator that works."""
        return next((trial for trial in self.trials if trial.works), None)

    def of(self, accel: str) -> Trial | None:
        """The trial of one accelerator, None where it was not tried."""
        return next((trial for trial in self.trials if trial.accel == accel), None)

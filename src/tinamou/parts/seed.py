"""First-boot configuration: what the user writes."""

from __future__ import annotations

from dataclasses import dataclass

from tinamou.fields import option


@dataclass(frozen=True, slots=True)
class SeedSpec:
    """First-boot configuration."""

    user: str = option("", "user")


def documents(seed: SeedSpec, name: str, macs: tuple[str, ...]) -> dict[str, str]:
    """Documents."""
    return {"meta-data": name}

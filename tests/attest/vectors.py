"""Where the public vectors of attestation are, and what is skipped without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VECTORS = Path(os.environ.get("TINAMOU_VECTORS") or Path(__file__).parents[3] / "shared/vectors/attestation")
MISSING = f"the public vectors of attestation are not here ({VECTORS}; TINAMOU_VECTORS names their folder)"


def vector(name: str) -> bytes:
    """One of them; the test is skipped where it is not there."""
    if not (VECTORS / name).is_file():
        pytest.skip(f"{name}: {MISSING}")
    return (VECTORS / name).read_bytes()

"""The network namespaces and switches of tests/net, for the doors that lead there."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1] / "net"))

from net.conftest import lab, switch

__all__ = ["lab", "switch"]

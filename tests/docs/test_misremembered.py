"""Whatever docs/reference/misremembered.md says is tested has that test, and every line says what is so."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in (ROOT / "docs/reference/misremembered.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| belief")
]


def test_every_test_it_names_is_there() -> None:
    assert len(ROWS) >= 33
    for belief, truth, stands, test in ROWS:
        assert all((belief, truth, stands)), belief
        assert test or stands.startswith("not met"), f"{belief}: no test"
        if test:
            path, _, name = test.strip("`").partition("::")
            text = (ROOT / path).read_text()
            assert not name or f"def {name}(" in text, f"{belief}: {test}"

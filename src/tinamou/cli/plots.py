"""Small pictures of numbers in a line of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["spark", "timeline"]

_HEIGHTS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def spark(values: Sequence[float], top: float) -> str:
    """A column for each value, of a height between 0 and ``top``."""
    last = len(_HEIGHTS) - 1
    return "".join(_HEIGHTS[round(last * min(max(value / top, 0.0), 1.0))] for value in values)


def timeline(stages: Mapping[str, float], width: int = 40) -> list[str]:
    """A line for each stage, one after another: its name, its seconds, when it was as a bar of ``width`` columns."""
    whole = sum(stages.values()) or 1.0
    room, lines, at = max(map(len, stages), default=0), [], 0.0
    for name, seconds in stages.items():
        begin, end = round(8 * width * at / whole), round(8 * width * (at + seconds) / whole)
        at += seconds
        full, rest = divmod(max(end - begin // 8 * 8, 1), 8)
        bar = " " * (begin // 8) + "█" * full + _EIGHTHS[rest]
        lines.append(f"{name:<{room}}  {seconds * 1000:8.1f} ms  {bar}".rstrip())
    return lines

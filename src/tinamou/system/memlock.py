"""How much memory a process that is started here may lock (source: getrlimit(2))."""

from __future__ import annotations

__all__ = ["lockable"]


def lockable() -> int | None:
    """Bytes, None for as much as it likes: found out by raising the hard limit, which root of a container may not either."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY:
        return None
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard + 1))
    except (ValueError, OSError):
        return hard
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    return None

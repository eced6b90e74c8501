"""One file per check: ``TITLE`` and ``check(seen) -> Finding``; it decides from what it sees and changes nothing."""

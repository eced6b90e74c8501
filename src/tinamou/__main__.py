"""Running the package is the ``tinamou`` command, which heeds requests to end before its modules are there."""

from __future__ import annotations

import os
import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line; whoever is asked to end while its modules are loaded says so, and ends at once."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _ended)
    from tinamou.cli.main import main as command

    command()


def _ended(number: int, _: object) -> None:
    said = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    os.write(2, f"{said}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()

"""tinamou, killed at a moment of a move: ``dying.py FUNCTION before|after WORDS…``, one of `tinamou.state.moves`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from tinamou.cli.main import main
from tinamou.state import moves

if __name__ == "__main__":
    _, name, when, *words = sys.argv
    done = getattr(moves, name)

    def dying(*arguments: Any) -> Any:
        if when == "after":
            done(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(moves, name, dying)
    sys.argv = ["tinamou", *words]
    sys.exit(main())

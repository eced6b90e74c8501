"""What a command, a service, a fleet and a program call: one function for each use case, from names to typed results.

Each is a coroutine function: it hears nothing of where it was called from, tells a `Progress` how far it is where that takes
long, and cleans up after itself when it is cancelled. `operation.begin` runs any of them as an `Operation` with an id.
"""

from __future__ import annotations

__all__: list[str] = []

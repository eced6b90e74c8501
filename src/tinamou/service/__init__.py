"""A door for programs, browsers and agents beside the command: HTTP over the same operations, locks and state.

`tinamou.service.app.application` makes the ASGI application, `tinamou.service.server` serves it. It keeps nothing that is
not in the state directory: it can be killed and started at any moment.
"""

from __future__ import annotations

__all__: list[str] = []

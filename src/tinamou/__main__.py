"""Running the package, ``python -m tinamou``, is the ``tinamou`` command."""

from __future__ import annotations

from tinamou.cli.main import main

main()

"""What script/lab asks of tinamou's own code; in a file of its own, so that the types are checked as the library's are.

usage: lab_parts.py cache | builder | boot ROOT MODULE…
"""

from __future__ import annotations

import sys
from pathlib import Path

from tinamou.images import tiny, tiny_tree
from tinamou.system.paths import cache_dir


def boot(root: Path, *modules: str) -> None:
    """Into boot/lab of that root, its kernel, unpacked, and an initrd as the tiny guest's with those modules too."""
    tiny_tree.extract_kernel(root, root / "boot/lab")
    (root / "boot/lab/initrd").write_bytes(tiny_tree.initrd(root, "x86_64", (*tiny.MODULES, *modules), tiny.FIRST))


match sys.argv[1:]:
    case ["cache"]:
        print(cache_dir())
    case ["builder"]:
        print(tiny.Tiny("x86_64").builder)
    case ["boot", root, *modules]:
        boot(Path(root), *modules)
    case _:
        sys.exit(__doc__)

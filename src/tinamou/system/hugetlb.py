"""The kernel's pools of huge pages: read, grow, shrink (source: Documentation/admin-guide/mm/hugetlbpage.rst)."""

from __future__ import annotations

from tinamou.late import dataclass
from tinamou.system.rooted import Rooted
from tinamou.units import Size

__all__ = ["Pool"]

_COMPACT = "/proc/sys/vm/compact_memory"


@dataclass(frozen=True)
class Pool:
    """The pool of one page size on one memory node, or on all of them when ``node`` is None."""

    page: Size
    node: int | None = None
    files: Rooted = Rooted()

    @property
    def folder(self) -> str:
        """The pool's folder in sysfs."""
        base = "/sys/kernel/mm" if self.node is None else f"/sys/devices/system/node/node{self.node}"
        return f"{base}/hugepages/hugepages-{self.page >> 10}kB"

    @property
    def path(self) -> str:
        """The file that holds how many pages there are."""
        return f"{self.folder}/nr_hugepages"

    @property
    def total(self) -> int:
        """Pages in the pool, used or not, without those the kernel drops as soon as they are free (surplus).

        Raises FileNotFoundError when this kernel has no such pool.
        """
        found = self.files.integer(self.path)
        if found is None:
            raise FileNotFoundError(f"{self.path} is missing: this kernel has no {self.page} pages there")
        return found - (self.files.integer(f"{self.folder}/surplus_hugepages") or 0)

    @property
    def used(self) -> int:
        """Pages somebody uses, surplus ones included."""
        return (self.files.integer(self.path) or 0) - self.free

    @property
    def free(self) -> int:
        """Pages nobody uses."""
        return self.files.integer(f"{self.folder}/free_hugepages") or 0

    def resize(self, total: int) -> int:
        """Asks for ``total`` pages and returns how many there are then; compacts memory and asks again when short.

        The kernel gives what it finds in one piece, which may be less. Raises OSError without the right to ask.
        """
        self.files.write(self.path, str(total))
        if self.total < total:
            try:
                self.files.write(_COMPACT, "1")
            except OSError:
                pass
            self.files.write(self.path, str(total))
        return self.total

"""Decides whether guest memory lies on huge pages, of which size, and how many of them each memory node must hold ready.

Source: the kernel's Documentation/admin-guide/mm/hugetlbpage.rst and transhuge.rst.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinamou.blueprint import Note, Why
from tinamou.errors import PlanError
from tinamou.facts.host import HostFacts, NumaNode
from tinamou.late import dataclass
from tinamou.tuning.numa import GuestNode
from tinamou.units import Size

__all__ = ["HugepagePlan", "PagePool", "huge_pages"]

_GIB, _MIB2 = Size(1 << 30), Size(2 << 20)
_KEPT_FREE = 16
"""One part in sixteen of a node is left to the host when pages are reserved on demand."""


@dataclass(frozen=True)
class PagePool:
    """``count`` pages wanted on one host node (None: anywhere); ``missing`` of them the pool does not hold yet."""

    node: int | None
    count: int
    missing: int


@dataclass(frozen=True)
class HugepagePlan:
    """``page`` is the page size in bytes, None for ordinary memory (transparent huge pages where the host allows them)."""

    page: Size | None = None
    pools: tuple[PagePool, ...] = ()
    whys: tuple[Why, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def to_reserve(self) -> Size:
        """Bytes of ordinary memory that turn into huge pages."""
        return Size(sum(pool.missing for pool in self.pools) * (self.page or 0))


def huge_pages(host: HostFacts, requested: str, shares: Sequence[GuestNode]) -> HugepagePlan:
    """``requested`` is ``off``, ``auto``, ``2M`` or ``1G`` (any size the host has). Raises PlanError with the arithmetic.

    ``auto`` takes 1 GiB pages only where the pool already holds them, else 2 MiB pages, else says why it takes neither.
    """
    if requested == "off":
        return HugepagePlan()
    if requested == "auto":
        return _auto(host, shares)
    page = Size.parse(requested)
    plan, reason = _fit(host, page, shares, reserve=host.is_root)
    if plan is None:
        raise PlanError(f"memory on {page} huge pages cannot be had", why=reason, fix=_fix(host, page, reason))
    why = Why("spec memory.hugepages", f"{page} pages: fewer page table entries to walk, and memory no one else can take")
    return HugepagePlan(page, plan, (why, *_reserve_why(plan, page)))


def _fix(host: HostFacts, page: Size, reason: str) -> str:
    sizes = sorted({size for node in host.nodes for size in node.hugepages})
    have = ", ".join(str(Size(size)) for size in sizes) or "none"
    if page not in sizes:
        return f'choose another, or set hugepages = "off" (page sizes of this host: {have})'
    if "do not divide" in reason:
        return f"make the memory a multiple of {page}, or use smaller pages"
    if "not reserve" in reason:
        return "run as root, or reserve the pages before (write to nr_hugepages)"
    return f'free memory, ask for less, or set hugepages = "auto" (page sizes of this host: {have})'


def _auto(host: HostFacts, shares: Sequence[GuestNode]) -> HugepagePlan:
    reasons = []
    for page, reserve in ((_GIB, False), (_MIB2, host.is_root)):
        pools, reason = _fit(host, page, shares, reserve=reserve)
        if pools is not None:
            why = Why("default", f"{page} pages are to be had: {reason}")
            return HugepagePlan(page, pools, (why, *_reserve_why(pools, page)))
        reasons.append(f"{page}: {reason}")
    thp = host.thp in ("always", "madvise")
    text = "memory on transparent huge pages" if thp else "memory on ordinary pages: transparent huge pages are off, too"
    why = Why("host", "; ".join(reasons))
    return HugepagePlan(notes=(Note("info" if thp else "warning", text, why),), whys=(why,))


def _reserve_why(pools: tuple[PagePool, ...], page: Size) -> tuple[Why, ...]:
    rows = [f"{pool.missing} on {_where(pool.node)}" for pool in pools if pool.missing]
    text = f"{page} pages the pool lacks are reserved for this machine and given back when it ends: {', '.join(rows)}"
    return (Why("host", text),) if rows else ()


def _where(node: int | None) -> str:
    return "any node" if node is None else f"node {node}"


def _fit(
    host: HostFacts, page: Size, shares: Sequence[GuestNode], *, reserve: bool
) -> tuple[tuple[PagePool, ...] | None, str]:
    """The pools that hold the shares, or None; and the arithmetic either way."""
    if not any(page in node.hugepages for node in host.nodes):
        return None, f"this kernel has no pages of {page}"
    odd = [share.memory for share in shares if share.memory % page]
    if odd:
        return None, f"{page} pages do not divide {', '.join(str(size) for size in odd)}"
    pools, terms = [], []
    for share in shares:
        nodes = [node for node in host.nodes if share.host_node in (None, node.number)]
        pool, room, term = _pool(nodes, page, share)
        terms.append(term)
        if pool.missing and not reserve:
            return None, f"{term}, and this user may not reserve more" if not host.is_root else term
        if pool.missing > room:
            return None, term
        pools.append(pool)
    return tuple(pools), "; ".join(terms)


def _pool(nodes: list[NumaNode], page: Size, share: GuestNode) -> tuple[PagePool, int, str]:
    """One share's pool, how many pages the node could still give, and the sum in words."""
    count = share.memory // page
    ready = sum(node.hugepages.get(page, (0, 0))[1] for node in nodes)
    room = sum(max(node.free - node.memory // _KEPT_FREE, 0) // page for node in nodes)
    missing = max(count - ready, 0)
    text = (
        f"{count} pages of {page} wanted on {_where(share.host_node)}, {ready} free in the pool, room for {room} more in "
        f"{Size(sum(node.free for node in nodes)).mib} MiB of free memory less a sixteenth kept for the host"
    )
    if missing > room:
        text += f": {missing - room} pages are missing"
    return PagePool(share.host_node, count, missing), room, text

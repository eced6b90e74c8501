"""What the user can say about a disk."""

from __future__ import annotations

from typing import Literal

from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.units import Size

MAX_QUEUES = 256

DIRECT = ("none", "directsync")
"""Cache modes that read and write around the host's page cache."""


@dataclass(frozen=True)
class DiskSpec:
    """One more disk: an existing file, or a new empty one of the given size."""

    shorthand = "path"

    path: str = option("", "an existing image file")
    size: Size | None = option(None, "size of a new, empty disk", minimum=1 << 20)
    format: Literal["auto", "qcow2", "raw", "vmdk", "vhdx", "vdi", "vpc"] = option(
        "auto", "format of the file; a new disk is qcow2"
    )
    readonly: bool = option(False, "the guest cannot write to it; several machines can share the file")
    interface: Literal["auto", "virtio", "scsi", "nvme", "sata", "cdrom"] = option(
        "auto", "the device the guest sees; auto: virtio, and sata for a Windows without its drivers"
    )
    block_size: Literal[512, 4096] = option(
        512, "bytes of a block the guest reads and writes at once: 512, or 4096 as newer disks"
    )
    cache: Literal["writeback", "none", "writethrough", "directsync", "unsafe"] = option(
        "writeback", "who may hold data back: writeback uses the host's page cache and honours the guest's flushes"
    )
    aio: Literal["auto", "threads", "native", "io_uring"] = option(
        "auto",
        "how QEMU reads and writes; auto: native where the cache mode allows it, else io_uring, else threads, "
        "whichever this host permits",
    )
    discard: bool = option(True, "space the guest frees is given back to the host")
    detect_zeroes: Literal["off", "on", "unmap"] = option(
        "off", "zeros the guest writes: on stores them as holes, unmap frees their space (needs discard)"
    )
    iothread: bool = option(False, "a host thread of its own for this disk's requests")
    queues: int | None = option(None, "request queues; one for each CPU when left out", minimum=1, maximum=MAX_QUEUES)
    iops: int | None = option(None, "most requests a second, read and write together", minimum=1)
    bandwidth: Size | None = option(None, "most bytes a second, read and write together", minimum=1)
    on_full: Literal["pause", "error"] = option(
        "pause", "no space left on the host: the guest stands still until it is resumed, or its write fails"
    )
    key: str = option(
        "", "a file holding the passphrase of an encrypted disk (LUKS in qcow2); a new disk is encrypted with it"
    )
    port: int | None = option(
        None, "the hot-plug slot it sits in, from 1; it can be unplugged while the machine runs", minimum=1, maximum=32
    )
    number: int | None = option(
        None, "its number, where disks were removed before it; one more than the disk before when left out", minimum=0
    )

    def problems(self) -> list[Problem]:
        """Everything that does not fit together."""
        return [problem for problem in (*self._source_problems(), *self._option_problems()) if problem]

    def _source_problems(self) -> list[Problem]:
        found = []
        if bool(self.path) == bool(self.size):
            both = "given together" if self.path else "both missing"
            reason = f"path and size are {both}"
            found.append(Problem("path", self.path, reason, "give an existing file's path, or the size of a new disk"))
        if self.interface == "cdrom" and self.size:
            found.append(Problem("size", str(self.size), "a cdrom cannot be a new, empty disk", "give the path of an iso"))
        if self.key and self.format not in ("auto", "qcow2"):
            found.append(Problem("key", self.key, f"a {self.format} disk is not encrypted by tinamou", "use format qcow2"))
        return found

    def _option_problems(self) -> list[Problem]:
        found = []
        if self.aio == "native" and self.cache not in DIRECT:
            reason = f"native needs O_DIRECT, which this cache mode does not use (cache = {self.cache})"
            found.append(Problem("aio", self.aio, reason, "set cache = none, or aio = io_uring"))
        if self.detect_zeroes == "unmap" and not self.discard:
            found.append(
                Problem("detect_zeroes", "unmap", "unmap frees space, discard forbids it", "set discard = true, or on")
            )
        if self.on_full == "error" and self.interface in ("nvme", "cdrom"):
            reason = f"the {self.interface} device always does the same"
            found.append(Problem("on_full", "error", reason, "use interface virtio or scsi"))
        if self.block_size != 512 and self.interface in ("sata", "cdrom"):
            reason = f"a {self.interface} device always has blocks of its own size"
            found.append(Problem("block_size", self.block_size, reason, "use interface virtio, scsi or nvme"))
        if self.port is not None and self.interface == "sata":
            reason = "a disk on a SATA port cannot be plugged while the machine runs"
            found.append(Problem("port", self.port, reason, "leave it out, or use interface virtio, scsi or nvme"))
        for name in ("iothread", "queues"):
            if getattr(self, name) and self.interface in ("nvme", "cdrom", "sata"):
                reason = f"the {self.interface} device has none to choose"
                found.append(Problem(name, getattr(self, name), reason, "use interface virtio or scsi"))
        return found

"""What must be done to the host before QEMU starts, as data: prepare/ has one executor for each kind of step.

Every step can be printed (dry run), written down (journal) and undone. ``owner`` is the uid that QEMU will run as when the
file must belong to it, else None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tinamou.blueprint.element import Why
from tinamou.blueprint.net_steps import NetStep
from tinamou.late import dataclass, field
from tinamou.units import CpuSet, Size


@dataclass(frozen=True)
class MakeDir:
    """Create one directory; undone by removing it with everything in it."""

    path: str
    why: Why
    mode: int = 0o700
    owner: int | None = None


@dataclass(frozen=True)
class CopyFile:
    """Copy a small file ``source`` to ``path``; undone by removing the copy. ``anew``: also over one from before."""

    path: str
    source: str
    why: Why
    mode: int = 0o600
    owner: int | None = None
    anew: bool = False


@dataclass(frozen=True)
class EnrollKeys:
    """Make a variable store from ``template`` that trusts these certificates; undone by removing it.

    ``keys`` are pairs of a variable (``PK``, ``KEK``, ``db``) and a file.
    """

    path: str
    template: str
    keys: tuple[tuple[str, str], ...]
    why: Why
    owner: int | None = None


@dataclass(frozen=True)
class CreateImage:
    """Create an empty disk image of ``size``; undone by removing it.

    ``key`` names a file holding a passphrase: the image is then encrypted (LUKS inside qcow2).
    """

    path: str
    format: str
    size: Size
    why: Why
    owner: int | None = None
    key: str = ""


@dataclass(frozen=True)
class CreateOverlay:
    """Create a qcow2 overlay over ``backing``; its header names no backing file QEMU would have to open by path.

    ``size`` is the virtual size; undone by removing the overlay.
    """

    path: str
    backing: str
    backing_format: str
    size: Size
    why: Why
    owner: int | None = None


@dataclass(frozen=True)
class BuildIso:
    """Write an ISO 9660 image (Rock Ridge and Joliet) holding the given text files; undone by removing it.

    ``password`` names a file whose first line takes the place of ``@PASSWORD@``, as answer files of Windows have it.
    """

    path: str
    label: str
    files: Mapping[str, str]
    why: Why
    owner: int | None = None
    password: str = ""


@dataclass(frozen=True)
class WriteText:
    """Write a file that only its owner reads, the machine's own public key where the text has a place for it.

    Undone with the machine's folder.
    """

    path: str
    text: str
    why: Why


@dataclass(frozen=True)
class MakeSshKey:
    """Create an ed25519 key pair at ``path`` and ``path.pub``; undone by removing both."""

    path: str
    why: Why


Access = Literal["read", "write", "device", "append", "listen", "connect", "secret", "memory"]


@dataclass(frozen=True)
class HandOver:
    """Open ``path`` before QEMU starts and pass the descriptor on: QEMU needs no right of its own to the path.

    ``read`` and ``write`` (read and write) open what exists, ``device`` the file of the device whose folder ``vfio-dev`` in
    sysfs that is, ``append`` creates a log, ``listen`` creates a listening Unix
    socket, ``connect`` connects to one, ``secret`` passes a copy that lives in memory alone, ``memory`` creates memory of
    ``size`` bytes that has no name in any file system and is gone with the last process that uses it. The plan names the
    path; launch/ puts the descriptor in its place. ``locked``: it is held as QEMU holds the file of a disk, which it does
    for no other.
    """

    path: str
    access: Access
    why: Why
    size: int = 0
    locked: bool = False


@dataclass(frozen=True)
class SetUpTpm:
    """Give a TPM its keys and certificates, in a new folder ``path``; undone by removing the folder."""

    path: str
    why: Why
    owner: int | None = None


@dataclass(frozen=True)
class StartHelper:
    """Start a helper process that lives as long as the machine; ready when ``socket`` exists; undone by ending it.

    One whose state ``travels`` with the machine's own when that is saved does not keep a machine from being copied: the copy
    starts one of its own, whose folder, that of the socket, is empty at first.
    It sees the folder ``fixed`` as it is, and can change nothing in it. ``namespaces`` are its own; with one of mounts it
    sees the folder of its socket of all files, beside the system's programs and libraries. ``calls`` are groups of system
    calls it is allowed; none: all that its own filter allows. ``landlock`` are masks of what that refuses besides,
    ``memory`` the bytes of addresses it may have; 0: as many as it likes. ``label`` is the SELinux context it starts under.
    """

    name: str
    argv: tuple[str, ...]
    socket: str
    why: Why
    owner: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    travels: bool = False
    fixed: str = ""
    calls: tuple[str, ...] = ()
    landlock: tuple[int, int, int] = (0, 0, 0)
    memory: int = 0
    namespaces: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class LeaseCpus:
    """Hold host CPUs for this machine alone, so that no other machine is pinned to them; undone by giving them back."""

    cpus: CpuSet
    why: Why


@dataclass(frozen=True)
class ReserveHugepages:
    """Hold ``count`` huge pages of ``page`` bytes ready on a memory node (None: anywhere); the pool grows by what it lacks.

    Undone by shrinking the pool by as much, unless someone else changed it meanwhile.
    """

    page: Size
    node: int | None
    count: int
    why: Why


@dataclass(frozen=True)
class SetKernelValue:
    """Write a value below /sys or /proc while this machine runs; undone by the former value, unless it was changed since."""

    path: str
    value: str
    why: Why


@dataclass(frozen=True)
class MakeCgroup:
    """A control group for this machine's QEMU and helpers: ``cpu`` in hundredths of a CPU, ``memory`` in bytes, rates in
    bytes a second, ``pids`` processes and threads.

    ``beside`` is a file on the device whose rates are limited. ``by`` makes it: the ``kernel``, asked by this process, or
    the user's own ``systemd``. Undone by removing the group.
    """

    name: str
    why: Why
    cpu: int | None = None
    memory: Size | None = None
    read: Size | None = None
    write: Size | None = None
    beside: str = ""
    pids: int | None = None
    by: str = "kernel"


@dataclass(frozen=True)
class TakePciGroup:
    """Take functions of one IOMMU group from their drivers for vfio-pci, and let ``owner`` open the group.

    Undone by giving them back to the drivers they had, unless someone else took them meanwhile. ``regions`` are memory
    regions that have another size meanwhile: a device's address, the region's number, its size in bytes. ``resets``
    are a device's address and the one way in which the kernel may reset it meanwhile.
    """

    group: int
    devices: tuple[str, ...]
    why: Why
    owner: int | None = None
    regions: tuple[tuple[str, int, int], ...] = ()
    resets: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What it is about, for people."""
        return f"of IOMMU group {self.group}: {', '.join(self.devices)}"


@dataclass(frozen=True)
class TakePart:
    """Lend a device that a driver made of a part of its card (mdev), by its UUID, and let ``owner`` open its IOMMU group.

    Undone by letting nobody open it.
    """

    part: str
    group: int
    why: Why
    owner: int | None = None

    @property
    def name(self) -> str:
        """What it is about, for people."""
        return f"{self.part}, IOMMU group {self.group}"


@dataclass(frozen=True)
class SetVirtualFunction:
    """Set what a card does for one of its virtual functions, as ip(8) calls it: ``mac``, ``vlan``, ``trust``, ``spoofchk``.

    Undone by what it was before, but for what someone else changed meanwhile.
    """

    interface: str
    index: int
    settings: tuple[tuple[str, str], ...]
    why: Why

    @property
    def name(self) -> str:
        """What it is about, for people."""
        return f"{self.index} of {self.interface}: {', '.join(' '.join(one) for one in self.settings)}"


@dataclass(frozen=True)
class MakeSharedFile:
    """Make a file in memory of ``size`` bytes that QEMU (``owner``, which opens it anew by its descriptor) and the user
    ``viewer``, where there is one, may write to beside its maker; undone by removing it."""

    path: str
    size: int
    viewer: str
    why: Why
    owner: int | None = None


@dataclass(frozen=True)
class LendFile:
    """Let ``owner`` open a file of the user's, to write to it too with ``write``, whoever may do so beside.

    Undone by taking that right away again.
    """

    path: str
    write: bool
    why: Why
    owner: int


@dataclass(frozen=True)
class TakeUsbDevice:
    """Keep a USB device, by the port it is in, for this machine.

    Undone by offering it to the host's drivers again, where none has it.
    """

    port: str
    why: Why

    @property
    def name(self) -> str:
        """What it is about, for people."""
        return f"in USB port {self.port}"


@dataclass(frozen=True)
class LoadProfiles:
    """Load AppArmor profiles: ``text`` has them, ``name`` is QEMU's, and what all their names begin with.

    Undone by removing them, when their processes have ended.
    """

    name: str
    text: str
    why: Why


HostStep = (
    LeaseCpus
    | ReserveHugepages
    | SetKernelValue
    | MakeCgroup
    | SetVirtualFunction
    | TakePart
    | TakePciGroup
    | TakeUsbDevice
    | MakeSharedFile
    | LendFile
    | LoadProfiles
)
"""Steps that take something from the host beyond files; each is in the receipt while the machine has it."""

Step = (
    MakeDir
    | CopyFile
    | EnrollKeys
    | CreateImage
    | CreateOverlay
    | BuildIso
    | WriteText
    | MakeSshKey
    | HandOver
    | SetUpTpm
    | StartHelper
    | HostStep
    | NetStep
)

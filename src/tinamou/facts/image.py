"""What an image is and how it boots: settled by images/ before planning."""

from __future__ import annotations

from tinamou.late import dataclass
from tinamou.units import Size


@dataclass(frozen=True)
class ImageFacts:
    """One image, resolved to files on this host.

    ``disk`` is empty for a guest that lives in its initrd; ``format`` is QEMU's name (``qcow2``, ``raw``, ``vmdk``, …,
    ``iso`` for an optical disc). ``boots`` says how it can start: any of ``bios``, ``uefi``, ``direct``. ``kernel`` is
    what a boot loader would load (bzImage, Image); ``fast_kernel`` the same kernel uncompressed with a PVH entry point,
    empty where there is none. ``agent`` tells whether qemu-guest-agent starts by itself, ``resident`` whether tinamou's own
    program answers before that (`tinamou.images.programs`), ``seed`` which kind of first-boot
    configuration it reads (``nocloud`` or empty), ``ssh`` whether sshd runs. ``built`` is False while the files do not exist
    yet. ``windows`` is the Windows that was found on the disk, ``drivers`` those of virtio's drivers it can use: a disk on
    virtio is started from with ``viostor``.
    """

    name: str
    arch: str
    disk: str = ""
    format: str = ""
    size: Size = Size(0)
    boots: tuple[str, ...] = ()
    kernel: str = ""
    fast_kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    agent: bool = False
    resident: bool = False
    seed: str = ""
    ssh: bool = False
    user: str = ""
    built: bool = True
    windows: str = ""
    drivers: tuple[str, ...] = ()

    @property
    def may_have_sshd(self) -> bool:
        """Whether a way to port 22 is worth having: an ssh server is known, or it is a disk nobody has described."""
        return self.ssh or bool(self.disk and self.format != "iso")

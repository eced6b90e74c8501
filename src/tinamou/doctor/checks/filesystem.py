"""Whether the filesystem suits disk images."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Filesystem of the machines"
_REMOTE = ("nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "virtiofs")


def check(seen: Inspection) -> Finding:
    """Tries to clone a file; copy-on-write files break images into fragments, network filesystems cost every flush."""
    folder = seen.folder()
    if folder is None or folder.reflink is None:
        return unknown("the folder of the machines cannot be written to, nothing was tried")
    if folder.kind in _REMOTE:
        return warning(f"{folder.path} is on {folder.kind}", "keep machines on a local disk: TINAMOU_STATE=/path")
    if folder.copy_on_write:
        return warning(
            f"{folder.kind} writes every changed block of an image to a new place",
            f"chattr +C {folder.path} before images are made",
        )
    if folder.kind in ("tmpfs", "ramfs", "overlay"):
        return info(f"{folder.path} is on {folder.kind}", "machines there do not outlive a reboot, or the container")
    how = (
        "copies share their blocks (reflink)"
        if folder.reflink
        else "copies are full copies (no reflink), overlays are not affected"
    )
    return good(f"{folder.kind}: {how}")

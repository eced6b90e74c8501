"""Descriptions in a folder, tried one by one: how many of each format are accepted, and which changes of a value are silent.

``python tests/convert/tried.py FOLDER [SECONDS]``, with src, tests and tests/convert in PYTHONPATH. The table in
docs/guides/coming-from-other-tools.md was made so, of files of public repositories.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from changing import of_install, of_lines, of_settings, of_tree, of_words, of_xml, outcome

from tinamou.convert import kinds

LARGEST = 1 << 20
WAYS = {
    **dict.fromkeys(("libvirt", "ovf", "vbox", "hyperv", "parallels"), of_xml),
    **dict.fromkeys(("vmx", "quickemu"), of_lines),
    **dict.fromkeys(("proxmox", "xl", "readconfig"), of_settings),
    **dict.fromkeys(("kubevirt", "incus", "lima", "firecracker", "cloud-hypervisor", "podman", "gns3", "utm"), of_tree),
    "qemu": of_words,
    "virt-install": of_install,
}


def main(folder: Path, seconds: float) -> None:
    """Print the counts, and every silent change by what was done."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    silent: dict[str, Counter[str]] = defaultdict(Counter)
    ends = time.monotonic() + seconds
    for path in sorted(one for one in folder.rglob("*") if one.is_file() and one.stat().st_size <= LARGEST):
        text = path.read_text("utf-8-sig", "replace")
        if not (kind := kinds.kind_of(text)) or time.monotonic() > ends:
            continue
        before = outcome(text)
        counts[kind].update({"files": 1, "accepted": before.startswith("(")})
        for what, changed in WAYS[kind](text) if before.startswith("(") and kind in WAYS else ():
            counts[kind]["changes"] += 1
            silent[kind][what] += outcome(changed) == before
    for kind, found in counts.items():
        print(kind, dict(found), {what: number for what, number in silent[kind].most_common(20) if number})


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 3600)

"""Record what this host's QEMU binaries and firmware packages offer, for tests that need no QEMU.

usage: python tests/facts/record.py BINARY…      (for example /usr/bin/qemu-system-x86_64)
       python tests/facts/record.py --firmware   (the descriptors below /usr/share/qemu/firmware)

Paths are written as a Debian installation in / has them. The QEMU 10 of script/qemu10 must be recorded with its own
modules over the older one's, or it dies when asked for its types:

    unshare -m sh -c 'mount --bind MODULES /usr/lib/x86_64-linux-gnu/qemu && exec python tests/facts/record.py BINARY'
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from tinamou.facts import QemuFacts
from tinamou.facts.stored import to_plain
from tinamou.probe.firmware import probe_firmware
from tinamou.probe.qemu import probe_qemu

HERE = Path(__file__).parent


def normalised(facts: QemuFacts) -> QemuFacts:
    """The same facts as if the binary were installed in /usr/bin."""
    folders = (str(Path(folder).resolve()) for folder in facts.data_dirs)
    installed = dict.fromkeys("/usr/" + folder.rpartition("/usr/")[2] for folder in folders)
    return dataclasses.replace(facts, binary=f"/usr/bin/qemu-system-{facts.arch}", data_dirs=tuple(installed), loads=())


def name_of(facts: QemuFacts) -> str:
    """The recording's name: version without the last number, architecture."""
    major, minor, _ = facts.version
    return f"qemu-{major}.{minor}-{facts.arch}.json"


def write(name: str, facts: object) -> None:
    """One recording, readable enough for a diff."""
    (HERE / name).write_text(json.dumps(to_plain(facts), indent=1, ensure_ascii=False) + "\n")
    print(HERE / name)


def main(arguments: list[str]) -> None:
    """Record each binary named, or the firmware."""
    for argument in arguments:
        if argument == "--firmware":
            scan = probe_firmware(config_home="/nonexistent")
            write("firmware-debian.json", list(scan.firmware))
        else:
            facts = probe_qemu(argument, cached=False)
            if facts.notes:
                sys.exit(f"{argument} cannot be recorded: {'; '.join(facts.notes)}")
            write(name_of(facts), normalised(facts))


if __name__ == "__main__":
    main(sys.argv[1:])

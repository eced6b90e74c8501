"""Plans with devices for hosts of our own making and for recorded ones, in short; run by hand it writes the golden file."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from host_trees import RECORDED, recorded_folder, unpack
from made_facts import TCG, TINY, facts
from made_hosts import HOSTS, build

from tinamou.blueprint import TakePciGroup
from tinamou.errors import PlanError
from tinamou.machine.elsewhere import recorded
from tinamou.machine.passthrough import rows_of
from tinamou.machine.pci_tree import drawn
from tinamou.planner import plan
from tinamou.spec import load_spec

FILE = Path(__file__).parent / "hosts.json"


def planned(root: Path, pci: list[Any]) -> dict[str, Any]:
    """What is decided for one request, or every reason why not: four CPUs, or most of the host for many cards."""
    known = recorded(facts(TINY, TCG), str(root))
    count = 4 if len(pci) < 4 else len(known.host.cpus) * 3 // 4
    try:
        made = plan(load_spec({"pci": pci, "cpu": {"count": count, "pin": "auto"}, "memory": "4G"}), known)
    except PlanError as error:
        return {"refused": [str(problem) for problem in error.problems] or [str(error)]}
    devices = [one.props for one in made.elements if one.kind == "device"]
    return {
        "groups": {str(step.group): list(step.devices) for step in made.steps if isinstance(step, TakePciGroup)},
        "seats": {
            str(one.get("host", one.get("sysfsdev"))): f"{one['bus']} {one['addr']}"
            for one in devices
            if one.get("driver") == "vfio-pci"
        },
        **(
            {"regions": sizes}
            if (sizes := [list(one) for step in made.steps for one in getattr(step, "regions", ())])
            else {}
        ),
        **({"properties": more} if (more := [key for one in devices for key in one if str(key).startswith("x-")]) else {}),
        "roots": [
            f"{one['id']} bus {one['bus_nr']} node {one['numa_node']}" for one in devices if one["driver"] == "pxb-pcie"
        ],
        "cpus": [str(cpus) for cpus in made.pinning.vcpus] if made.pinning else [],
        "notes": [note.text for note in made.notes if re.search("reset|region|pretended", note.text)],
    }


def made() -> dict[str, Any]:
    """Of every host of our own making."""
    found = {}
    for name, (_, _, requests) in HOSTS.items():
        with tempfile.TemporaryDirectory() as folder:
            root = build(Path(folder).resolve(), name)
            answers = {json.dumps(pci): planned(root, pci) for pci in requests}
            found[name] = {"tree": list(drawn(_nameless(root))), "plans": answers}
    return found


def of_recordings() -> dict[str, Any]:
    """Of every recorded host: the first graphics card it has, whatever its number, or one it has not; a virtual function of
    its first network card, and a part of that graphics card."""
    return {name: answers(unpack(name)) for name in RECORDED}


def answers(root: Path) -> dict[str, Any]:
    """What is decided for each of these."""
    card = _card(root)
    net = next((str(row.device.address) for row in rows_of(root) if row.device.kind == "network"), "eth0")
    asked = [card], [f"vf of {net}"], [f"mdev of {card if '.' in card else '01:00.0'}"]
    return {json.dumps(pci): planned(root, pci) for pci in asked}


def _card(root: Path) -> str:
    found = [row.device for row in rows_of(root) if row.device.kind == "graphics"]
    return str(found[0].address) if found else "10de:20b0"


def _nameless(root: Path) -> list[Any]:
    """Without the names of pci.ids, which is another on another host."""
    from tinamou import late

    return [late.replace(row, name="") for row in rows_of(root)]


if __name__ == "__main__":
    assert recorded_folder() is not None
    FILE.write_text(json.dumps({"made": made(), "recorded": of_recordings()}, indent=1, ensure_ascii=False) + "\n")

"""How tinamou talks to the machine: QMP monitors, the serial console with its log, the guest agent's channel."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, Flag, HandOver, Value, Why
from tinamou.facts import files
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved

AGENT_PORT = "org.qemu.guest_agent.0"
RESIDENT_PORT = "org.tinamou.resident.0"
SPICE_PORT = 4
"""The number of the port of a SPICE viewer's agent: those before it are agent, resident, and what is copied."""
MONITORS = ("qmp", "qmp2")
"""``qmp`` belongs to the process that attends the machine, ``qmp2`` to every other command."""


def needs(_: Resolved) -> tuple[Need, ...]:
    """The virtio-serial controller's slot."""
    return (PciSlot("serial0"),)


def contribute(resolved: Resolved) -> Contribution:
    """Sockets are opened before QEMU starts, so that a client can connect at once."""
    return Contribution.merge([_monitors(resolved), _console(resolved), _agent(resolved), _resident(resolved)])


def _socket(name: str, resolved: Resolved, why: Why, **extra: Value) -> tuple[Element, HandOver]:
    path = resolved.file(f"{name}.sock")
    props: dict[str, Value] = {"id": name, "path": path, "server": True, "wait": False, **extra}
    return Element("chardev", props, why, head="socket"), HandOver(path, "listen", why)


def _monitors(resolved: Resolved) -> Contribution:
    elements, steps = [], []
    why = Why("part monitor", "QEMU is steered over QMP, on a socket only the owner can open")
    for name in MONITORS:
        chardev, step = _socket(name, resolved, why)
        elements += [chardev, _monitor(name, resolved, why)]
        steps.append(step)
    return Contribution(elements=tuple(elements), steps=tuple(steps))


def _monitor(name: str, resolved: Resolved, why: Why) -> Element:
    """An object where there is such a type: ``-mon`` is deprecated there."""
    if resolved.facts.qemu.has("type:monitor-qmp"):
        return Element("object", {"qom-type": "monitor-qmp", "id": f"{name}-mon", "chardev": name}, why)
    return Element("mon", {"chardev": name, "mode": "control"}, why)


def _console(resolved: Resolved) -> Contribution:
    log = resolved.file(files.SERIAL_LOG)
    why = Why("part monitor", "the first serial port is the console; everything it says is logged")
    chardev, step = _socket("console", resolved, why, logfile=log, logappend=True)
    serial = Flag("serial", why, "chardev:console")
    return Contribution(elements=(chardev,), flags=(serial,), steps=(step, HandOver(log, "append", why)))


def _agent(resolved: Resolved) -> Contribution:
    why = Why("part monitor", "the guest agent answers here: ready means that a command ran in the guest")
    chardev, step = _socket("agent", resolved, why)
    ports = 4 if resolved.spec.display.type != "spice" else SPICE_PORT + 1  # 0 is the console's, one is for copies
    props: dict[str, Value] = {
        "driver": "virtio-serial-pci",
        "id": "serial0",
        **resolved.slot("serial0"),
        "max_ports": ports,
    }
    return Contribution((chardev, Element("device", props, why), port("agent", 1, AGENT_PORT, why)), steps=(step,))


def _resident(resolved: Resolved) -> Contribution:
    why = Why("part monitor", "a fork is given its own identity here within milliseconds, and runs commands")
    chardev, step = _socket("resident", resolved, why)
    return Contribution((chardev, port("resident", 2, RESIDENT_PORT, why)), steps=(step,))


def port(chardev: str, number: int, name: str, why: Why) -> Element:
    """A port of the guest's virtio-serial controller, by number and name."""
    props: dict[str, Value] = {"driver": "virtserialport", "bus": "serial0.0", "nr": number, "chardev": chardev}
    return Element("device", {**props, "name": name, "id": f"{chardev}-port"}, why)


PART = Part(contribute, needs)

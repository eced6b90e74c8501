"""How tinamou talks to the machine: QMP monitors, the serial console with its log, the guest agent's channel."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, Flag, HandOver, Value, Why
from tinamou.parts.settled import Need, PciSlot, Settled

AGENT_PORT = "org.qemu.guest_agent.0"
RESIDENT_PORT = "org.tinamou.resident.0"
MONITORS = ("qmp", "qmp2")
"""``qmp`` belongs to the process that attends the machine, ``qmp2`` to every other command."""


def needs() -> tuple[Need, ...]:
    """The virtio-serial controller's slot."""
    return (PciSlot("serial0"),)


def contribute(settled: Settled) -> Contribution:
    """Sockets are opened before QEMU starts, so that a client can connect at once."""
    return Contribution.merge([_monitors(settled), _console(settled), _agent(settled), _resident(settled)])


def _socket(name: str, settled: Settled, why: Why, **extra: Value) -> tuple[Element, HandOver]:
    path = settled.file(f"{name}.sock")
    props: dict[str, Value] = {"id": name, "path": path, "server": True, "wait": False, **extra}
    return Element("chardev", props, why, head="socket"), HandOver(path, "listen", why)


def _monitors(settled: Settled) -> Contribution:
    elements, steps = [], []
    for name in MONITORS:
        chardev, step = _socket(
            name, settled, Why("part monitor", "QEMU is steered over QMP, on a socket only the owner can open")
        )
        elements += [chardev, Element("mon", {"chardev": name, "mode": "control"}, chardev.why)]
        steps.append(step)
    return Contribution(elements=tuple(elements), steps=tuple(steps))


def _console(settled: Settled) -> Contribution:
    log = settled.file("serial.log")
    why = Why("part monitor", "the first serial port is the console; everything it says is logged")
    chardev, step = _socket("console", settled, why, logfile=log, logappend=True)
    serial = Flag("serial", why, "chardev:console")
    return Contribution(elements=(chardev,), flags=(serial,), steps=(step, HandOver(log, "append", why)))


def _agent(settled: Settled) -> Contribution:
    why = Why("part monitor", "the guest agent answers here: ready means that a command ran in the guest")
    chardev, step = _socket("agent", settled, why)
    controller: dict[str, Value] = {
        "driver": "virtio-serial-pci",
        "id": "serial0",
        "addr": settled.pci["serial0"],
        "max_ports": 4,
    }
    port: dict[str, Value] = {
        "driver": "virtserialport",
        "bus": "serial0.0",
        "nr": 1,
        "chardev": "agent",
        "name": AGENT_PORT,
        "id": "agent-port",
    }
    return Contribution((chardev, Element("device", controller, why), Element("device", port, why)), (), (step,))


def _resident(settled: Settled) -> Contribution:
    why = Why("part monitor", "a fork is given its own identity here within milliseconds, and runs commands")
    chardev, step = _socket("resident", settled, why)
    port: dict[str, Value] = {
        "driver": "virtserialport",
        "bus": "serial0.0",
        "nr": 2,
        "chardev": "resident",
        "name": RESIDENT_PORT,
        "id": "resident-port",
    }
    return Contribution((chardev, Element("device", port, why)), (), (step,))

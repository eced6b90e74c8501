"""Stands where QEMU is: it has the monitors it was handed, remembers what it was told, and computes nothing.

usage: a script that runs this file with the real QEMU's path in TINAMOU_REAL_QEMU; questions about the binary go there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": ["oob"]}}


class Fake:
    """The machine: whether it runs, and what sits in its hot-plug slots, by device."""

    def __init__(self, devices: list[dict[str, Any]]) -> None:
        self.running = True
        self.devices = [one["id"] for one in devices if "id" in one]
        self.slots = [one["id"] for one in devices if one.get("driver") == "pcie-root-port"]
        self.plugged: dict[str, str] = {one["id"]: one["bus"] for one in devices if one.get("bus") in self.slots}
        self.peers: list[socket.socket] = []
        self.lock = threading.Lock()

    def tell(self, event: str, **data: object) -> None:
        """An event, to everybody who listens."""
        for peer in list(self.peers):
            try:
                say(peer, {"event": event, "data": data, "timestamp": {"seconds": 1, "microseconds": 0}})
            except OSError:
                self.peers.remove(peer)

    def answer(self, command: str, given: dict[str, Any]) -> object:
        """What it returns for a command. Raises KeyError for one it does not know."""
        match command:
            case "query-status":
                return {"status": "running" if self.running else "paused", "running": self.running}
            case "stop" | "cont":
                self.running = command == "cont"
            case "query-pci":
                ports = [{"qdev_id": slot, "pci_bridge": self._behind(slot)} for slot in self.slots]
                return [{"bus": 0, "devices": ports}]
            case "qom-list":
                return [{"name": one, "type": "child<device>"} for one in self.devices]
            case "device_add":
                self.plugged[given["id"]] = given["bus"]
            case "device_del":
                del self.plugged[given["id"]]
                self.tell("DEVICE_DELETED", device=given["id"], path=f"/machine/peripheral/{given['id']}")
            case "system_powerdown" | "quit":
                self.tell("SHUTDOWN", guest=command != "quit", reason="guest-shutdown")
                threading.Timer(0.02, os._exit, (0,)).start()
            case "system_reset":
                self.tell("RESET", guest=False, reason="host-qmp-system-reset")
            case "trace-event-get-state":
                return [{"name": "memory_region_ops_read", "state": "disabled", "vcpu": False}]
            case "trace-event-set-state":
                pass
            case "qmp_capabilities" | "query-migrate" | "netdev_add" | "netdev_del" | "getfd" | "closefd" | "chardev-remove":
                pass
            case "query-fdsets" | "query-jobs" | "query-block" | "query-cpus-fast" | "query-chardev":
                return []
            case _:
                raise KeyError(command)
        return {}

    def _behind(self, slot: str) -> dict[str, object]:
        return {"devices": [{"qdev_id": one} for one, bus in self.plugged.items() if bus == slot]}


def say(peer: socket.socket, message: object) -> None:
    """One message on a monitor."""
    peer.sendall(json.dumps(message).encode() + b"\r\n")


def serve(fake: Fake, listener: socket.socket) -> None:
    """One client of a monitor after another, as QEMU does."""
    while True:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):  # it hung up before it was answered
            attend(fake, peer)
        if peer in fake.peers:
            fake.peers.remove(peer)


def attend(fake: Fake, peer: socket.socket) -> None:
    """Answer a client until it hangs up."""
    say(peer, GREETING)
    fake.peers.append(peer)
    for line in peer.makefile("rb"):
        asked = json.loads(line)
        with fake.lock:
            try:
                reply = {"return": fake.answer(asked["execute"], asked.get("arguments", {}))}
            except KeyError as missing:
                reply = {"error": {"class": "GenericError", "desc": f"not here: {missing}"}}
            say(peer, {**reply, "id": asked.get("id")})


def main(words: list[str], make: Callable[[list[dict[str, Any]]], Fake] = Fake) -> None:
    """Serve the monitors of a machine; anything else is the real binary's."""
    real = os.environ.get("TINAMOU_REAL_QEMU", "/usr/bin/qemu-system-x86_64")
    if not any("opaque=" in word for word in words):
        os.execv(real, [real, *words])
    devices = [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-device"]
    fake = make(devices)
    chardevs = [words[at + 1] for at, word in enumerate(words) if word == "-chardev"]
    kept = []
    for chardev in chardevs:
        options = dict(option.partition("=")[::2] for option in chardev.split(","))
        if options.get("id") in ("qmp", "qmp2"):
            listener = socket.socket(fileno=int(options["fd"]))
            threading.Thread(target=serve, args=(fake, listener)).start()
            kept.append(listener)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Virtual functions (SR-IOV) switched on for guests, and off again: written down before the card is touched; what a card
does for one of them.

While they are there no driver of the host is offered them (``sriov_drivers_autoprobe``, Linux 4.12 and newer), so that no
interfaces come and go: one that is loaded a moment later, as udev does, would take them else.
Source: Documentation/ABI/testing/sysfs-bus-pci, sriov_numvfs.
"""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.blueprint import SetVirtualFunction
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.state import ledger
from tinamou.state.ledger import VirtualFunctions
from tinamou.system import iproute, nvme
from tinamou.system.exec import CommandError
from tinamou.system.rooted import Rooted

__all__ = ["create", "remove", "set_back", "set_for_guest"]

_FOLDER, _OFFERED = "/sys/bus/pci/devices", "sriov_drivers_autoprobe"


def create(address: str, count: int, files: Rooted) -> None:
    """Switch on so many virtual functions of a card that has none on. Raises PrepareError with the kernel's reason."""
    with ledger.edit() as held:
        now = _count(address, files)
        if now:
            why = f"{now} are on: a card is only given another number when it has none"
            raise PrepareError(
                f"{address} has virtual functions already", why=why, fix=f"tinamou pci remove-vfs {address} first"
            )
        offered = files.read(f"{_FOLDER}/{address}/{_OFFERED}") or ""
        held.vfs[address] = VirtualFunctions(now, count, offered)
        ledger.save(held)
        try:
            if offered:
                files.write(f"{_FOLDER}/{address}/{_OFFERED}", "0")
            files.write(f"{_FOLDER}/{address}/sriov_numvfs", str(count))
            for device in _nvme(address, files):
                nvme.put_online(device, count)
        except OSError as error:
            if not _count(address, files):
                _offer(address, held.vfs.pop(address), files)
            fix = "see the kernel's log; where regions do not fit: SR-IOV and above 4G decoding in the firmware setup"
            raise PrepareError(
                f"{address} does not make {count} virtual functions", why=error.strerror or str(error), fix=fix
            ) from error


def remove(address: str, files: Rooted) -> int:
    """Switch off what `create` switched on, and tell how many those were. Raises PrepareError where others changed it."""
    with ledger.edit() as held:
        known = held.vfs.get(address)
        if known is None:
            raise PrepareError(
                f"no virtual functions of {address} were made by tinamou", fix="whoever switched them on switches them off"
            )
        now = _count(address, files)
        if now not in (known.left, known.before):
            why = f"{now} are on, tinamou had left {known.left}: someone else changed it, it stays so"
            _offer(address, held.vfs.pop(address), files)
            raise PrepareError(f"the virtual functions of {address} are not given back", why=why)
        try:
            if now != known.before:
                for device in _nvme(address, files):
                    nvme.put_offline(device, now)
                files.write(f"{_FOLDER}/{address}/sriov_numvfs", str(known.before))
        except OSError as error:
            raise PrepareError(
                f"the virtual functions of {address} stay", why=error.strerror or str(error), fix="see the kernel's log"
            ) from error
        _offer(address, held.vfs.pop(address), files)
        return known.left


def _count(address: str, files: Rooted) -> int:
    return files.integer(f"{_FOLDER}/{address}/sriov_numvfs") or 0


def _nvme(address: str, files: Rooted) -> list[str]:
    """The file of a disk controller, whose virtual functions must be put online."""
    return [files.path(f"/dev/{name}") for name in files.names(f"{_FOLDER}/{address}/nvme")]


def _offer(address: str, known: VirtualFunctions, files: Rooted) -> None:
    """Drivers are offered what is made of it from now on, where they were before and nobody changed that meanwhile."""
    if known.offered and files.read(f"{_FOLDER}/{address}/{_OFFERED}") == "0":
        files.write(f"{_FOLDER}/{address}/{_OFFERED}", known.offered)


def set_for_guest(step: SetVirtualFunction, journal: Journal) -> None:
    """Have the card set a virtual function's address, VLAN, trust or spoof check; what it was is in the journal first.

    Raises PrepareError with ip's reason.
    """
    wanted = dict(step.settings)
    try:
        now = _settings(step.interface, step.index)
        before = {key: now[key] for key in wanted if key in now}
        journal.take("vf", interface=step.interface, index=step.index, before=before, left=wanted)
        _set(step.interface, step.index, wanted)
    except (CommandError, OSError) as error:
        why = error.stderr.strip() if isinstance(error, CommandError) else str(error)
        fix = "see what its driver can: ip link set dev INTERFACE vf N …"
        raise PrepareError(f"{step.interface} cannot set its virtual function {step.index}", why=why, fix=fix) from error


def set_back(entry: Entry) -> None:
    """Undoes `set_for_guest`, but for what someone else changed; an interface that is gone has nothing to be set back."""
    interface, index = str(entry["interface"]), int(str(entry["index"]))
    before, left = entry["before"], entry["left"]
    if not isinstance(before, dict) or not isinstance(left, dict) or not iproute.exists(interface):
        return
    now = _settings(interface, index)
    _set(interface, index, {key: str(value) for key, value in before.items() if now.get(key) == left.get(key)})


def _set(interface: str, index: int, values: Mapping[str, str]) -> None:
    if values:
        iproute.batch(
            [f"link set dev {interface} vf {index} " + " ".join(f"{key} {value}" for key, value in values.items())]
        )


def _settings(interface: str, index: int) -> dict[str, str]:
    """What a card has set for one of its virtual functions, in the words that set it. Raises CommandError, OSError."""
    found = next(iter(iproute.links("dev", interface)), {})
    one = next((one for one in found.get("vfinfo_list", []) if one.get("vf") == index), None)
    if one is None:
        raise OSError(f"{interface} has no virtual function {index}")
    vlan = next((str(entry.get("vlan", 0)) for entry in one.get("vlan_list", [])), "0")
    plain = {"mac": str(one.get("address", one.get("mac", ""))).lower(), "vlan": vlan}
    plain |= {
        "max_tx_rate": str(one.get("rate", {}).get("max_tx", one.get("tx_rate", 0)))
    }  # iproute2 leaves out a rate of 0
    switches = {key: "on" if one[key] else "off" for key in ("spoofchk", "trust") if isinstance(one.get(key), bool)}
    return {key: value for key, value in {**plain, **switches}.items() if value}

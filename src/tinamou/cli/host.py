"""The verb ``host``: who holds what of this host, what its CPUs look like, giving back; other hosts that are known."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Group, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import HostError, ProbeError, Problem, SpecError
from tinamou.fleet import hosts
from tinamou.units import CpuSet, Size

if TYPE_CHECKING:
    from tinamou.facts import HostFacts
    from tinamou.fleet.asking import Answer
    from tinamou.tuning.placement import Placement

app: Group = Group()


@app.alone
def show(*, json: Switch = False) -> None:
    """Show who holds what: processes, CPUs, huge pages, control groups, interfaces, changed kernel values, files."""
    from tinamou.machine.receipts import holdings, reports

    rows = [late.asdict(one) for one in holdings()]
    if json:
        output.print_json({"holdings": rows, "pools": _pools(), "reports": reports()})
        return
    shown = [{**row, "running": "yes" if row["running"] else "no"} for row in rows]
    output.table(shown, ("machine", "kind", "what", "running"))
    if not rows:
        print("no machine holds anything of this host")
    for pool in _pools():
        print(f"huge pages of {pool['size']} on node {pool['node']}: {pool['free']} of {pool['total']} free")
    output.warn(*reports())


def _pools() -> list[dict[str, object]]:
    from tinamou.probe.host import probe_host

    pools = [(node.number, size, *counts) for node in probe_host().nodes for size, counts in node.hugepages.items()]
    return [{"node": n, "size": str(Size(size)), "total": total, "free": free} for n, size, total, free in pools if total]


@app.named("secure-boot-keys")
def secure_boot_keys(folder: Path, /) -> None:
    """Make keys of your own for Secure Boot, in a new folder: for --secure-boot-keys FOLDER, and to sign with.

    sbsign --key FOLDER/db.key --cert FOLDER/db.pem FILE.EFI makes a file that such a machine starts.

    Parameters
    ----------
    folder
        Where they are put; PK.key and KEK.key are needed only to change what is trusted.
    """
    from tinamou.prepare.secure_boot import make_keys

    for path in make_keys(folder):
        print(path)


@app.command
def record(file: Path = Path("host.tar.gz"), /) -> None:
    """Write what planning reads of this host to a file: tinamou plan --host FILE plans for it elsewhere.

    CPUs, memory nodes, PCI devices and what is installed; no names of users, hosts or mount points, no addresses.

    Parameters
    ----------
    file
        A new file.
    """
    from tinamou.machine.recording import record as write

    try:
        count = write(file)
    except FileExistsError as error:
        raise ProbeError(f"{file} exists already", fix="name a new file") from error
    print(f"{file}: {count} files of /proc and /sys")


@app.command
def room(*, json: Switch = False) -> None:
    """Show what this host has left for machines: CPUs, memory, huge pages, devices, by memory node."""
    from tinamou.fleet import room

    left = room.this_room("here")
    if json:
        output.print_json(room.plain(left))
        return
    print(f"{left.cpus:g} of {left.all_cpus:g} CPUs, {left.memory >> 20} of {left.all_memory >> 20} MiB")
    rows = [
        {
            "node": node.number,
            "cpus": f"{node.cpus:g}",
            "memory": f"{node.memory >> 20} MiB",
            "huge pages": ", ".join(f"{count} of {page >> 10} KiB" for page, count in node.pages.items()),
            "devices": ", ".join(f"{count} {kind}" for kind, count in node.devices.items()),
        }
        for node in left.nodes
    ]
    output.table(rows, ("node", "cpus", "memory", "huge pages", "devices"))


@app.command
def repair(*, json: Switch = False) -> None:
    """Give back what no living machine holds; what someone else changed meanwhile is named and left as it is."""
    from tinamou.machine.receipts import repair as mend

    done = mend()
    if json:
        output.print_json({"repaired": done})
        return
    for line in done or ["nothing to repair"]:
        print(line)


@app.command
def topology(
    *,
    cpus: int = 0,
    iothreads: int = 0,
    memory: str = "0",
    latency: Switch = False,
    tree: str = "/",
    json: Switch = False,
) -> None:
    """Draw the CPUs, caches and memory nodes, and which machines hold which.

    Parameters
    ----------
    cpus
        Show as well where a machine with so many virtual CPUs would be pinned, and why.
    iothreads
        The I/O threads of that machine.
    memory
        Its memory, for example 8G.
    latency
        One virtual CPU per core.
    tree
        A recorded /proc and /sys of another host, below this folder.
    json
        Everything known about the host as JSON.
    """
    from tinamou.machine.host_side import leased
    from tinamou.probe.host import probe_host
    from tinamou.tuning.cpu_pinning import pin
    from tinamou.tuning.placement import PinRequest

    wanted = {"--cpus": cpus, "--iothreads": iothreads}
    problems = [Problem(name, count, "fewer than none", "0 or more") for name, count in wanted.items() if count < 0]
    size = Size(0)
    try:
        size = Size.parse(memory)
    except ValueError:
        problems.append(Problem("--memory", memory, "not a size", "write for example 512M or 2G"))
    if problems:
        raise SpecError("there is no such machine", problems=problems)
    if not Path(tree, "sys/devices/system/cpu").is_dir():
        raise ProbeError(
            f"{tree} holds no /sys/devices/system/cpu", fix="name the folder that holds the recorded sys and proc"
        )
    facts = probe_host(tree)
    held = leased("") if tree == "/" else {}
    request = PinRequest(cpus, latency=latency, iothreads=iothreads, memory=size, leased=held)
    placement = pin(facts, request) if cpus else None
    if json:
        shown = late.asdict(facts)
        output.print_json(shown if placement is None else {**shown, "placement": late.asdict(placement)})
    else:
        _draw(facts, held, placement, tree)


def _draw(facts: HostFacts, held: Mapping[str, CpuSet], placement: Placement | None, tree: str) -> None:
    import shutil

    from tinamou.blueprint import Pinning
    from tinamou.machine.host_picture import picture
    from tinamou.probe.pci import devices_by_node
    from tinamou.system.rooted import Rooted

    pinning = None
    if placement is not None and placement.vcpus:
        threads = {f"io{number}": cpus for number, cpus in enumerate(placement.iothreads)}
        pinning = Pinning(placement.vcpus, placement.emulator, threads)
    width = shutil.get_terminal_size((100, 24)).columns
    devices = devices_by_node(Rooted(tree)) if len(facts.nodes) > 1 else {}
    print(picture(facts, pinning, held, devices=devices, width=width))
    for why in placement.whys if placement is not None else ():
        print(f"- {why.reason}")
    output.notes(placement.notes if placement is not None else ())


@app.command
def add(
    name: str,
    address: str = "",
    /,
    *,
    user: str = "",
    port: int = 22,
    fingerprint: str = "",
    identity: str = "",
    command: str = "tinamou",
    timeout: float = 10.0,
    json: Switch = False,
) -> int:
    """Know another host from now on: tinamou -H NAME … does things there. Its key is shown, and you are asked.

    Parameters
    ----------
    name
        What you call it.
    address
        Where it is: a name or a number; its name when left out.
    user
        Log in as this user.
    port
        Where its ssh server listens.
    fingerprint
        The fingerprint of its key, SHA256:…, from whoever runs it: nobody is asked then.
    identity
        File of the private key to log in with; those of ssh's own habit when left out.
    command
        What calls tinamou there.
    timeout
        Seconds it may take to answer, now and whenever all hosts are asked.
    """
    from tinamou.fleet import hosts, joining

    words = _words(command)
    where = address or name
    keys = run_until_done(joining.keys_shown(where, port, timeout=timeout))
    key = joining.chosen(keys, fingerprint or _asked(where, keys))
    path = os.path.abspath(identity) if identity else ""  # noqa: PTH100  a link stays one
    host = hosts.Host(name, where, key, user, port, words, path, timeout)
    hosts.add(host)
    status: int = check(name, json=json)
    return status


def _words(command: str) -> tuple[str, ...]:
    import shlex

    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        problem = Problem("--command", command, f"no command line: {error}", "quote it as for a shell")
        raise SpecError("the host cannot be added", problems=[problem]) from error


def _asked(where: str, keys: Sequence[str]) -> str:
    """The fingerprint of the first key, where the person at the terminal says that it is the right one; else nothing."""
    from tinamou.fleet.hosts import fingerprint
    from tinamou.system import terminal

    if not (terminal.is_terminal(0) and terminal.is_terminal(2)):
        return ""
    shown = fingerprint(keys[0])
    print(f"{where} shows the key {keys[0].partition(' ')[0]} {shown}", file=sys.stderr)
    print("is that what whoever runs it says? (yes, no, or the fingerprint) ", end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline().strip()
    return shown if said == "yes" else said if said.startswith("SHA256:") else ""


@app.command
def ls(*, json: Switch = False) -> None:
    """List the other hosts that are known."""
    import shlex

    rows = [one.plain() for one in hosts.every()]
    if json:
        output.print_json(rows)
        return
    shown = [{**row, "command": shlex.join(row["command"])} for row in rows]
    output.table(shown, ("name", "address", "port", "user", "fingerprint", "command"))


@app.command
def rm(*names: str) -> None:
    """Know these hosts no more.

    Parameters
    ----------
    names
        Their names.
    """
    for name in names:
        hosts.remove(name)


@app.command
def check(*names: str, json: Switch = False) -> int:
    """Say which of the hosts answer, and with which tinamou. The exit status is 120 when one does not.

    Parameters
    ----------
    names
        The hosts; all when left out.
    """
    from tinamou.fleet.asking import ask_all

    known = [hosts.find(name) for name in names] or hosts.every()
    answers = run_until_done(ask_all(known, ["ls"]))
    output.table([_checked(one) for one in answers], ("name", "answers", "machines", "why"), json=json)
    return HostError.code if any(one.error for one in answers) else 0


def _checked(answer: Answer) -> dict[str, object]:
    machines = "" if answer.error else len(answer.data)
    return {"name": answer.host, "answers": "no" if answer.error else "yes", "machines": machines, "why": answer.why}

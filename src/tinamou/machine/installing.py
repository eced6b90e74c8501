"""Guests installed from a disc: the installer started and watched until it restarts, then the disk it wrote to.

A machine that is being installed ends at its guest's first restart (QEMU's action for a reset is to end): what comes next
starts from the disk, in a QEMU of its own, with the disc last in the order, and out of its drive.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
import time
from pathlib import Path

from tinamou import late
from tinamou.blueprint import Plan
from tinamou.errors import GuestError, Problem, SpecError, StateError, TinamouError
from tinamou.facts import files
from tinamou.images import installer
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import booting, seeing
from tinamou.machine.connected import Connected
from tinamou.machine.description import describe_later, settled
from tinamou.machine.planning import plan_only
from tinamou.parts import windows
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.seed import SeedSpec
from tinamou.spec import MachineSpec
from tinamou.state.record import Record, change, newest
from tinamou.system.closing import IfFailed
from tinamou.system.logs import last_lines
from tinamou.system.loop_thread import in_thread
from tinamou.system.plain_file import read_given
from tinamou.system.spawn import gone

__all__ = ["Installed", "answered", "from_disk", "install"]

LAST_PICTURE = "last-screen.png"
_LOOK = 2.0
_LINES = 40
_WIDE = 100
_FIRMWARE_SECONDS = 300.0
_AGENT_SECONDS = 5.0
_WANTS_A_KEY = re.compile(r"[Pp]ress any key to boot from (?:the )?(?:CD|DVD)")
"""What Windows' discs say for five seconds before they let the next device start."""
_CONTROLS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]")
"""What moves a terminal's cursor, colours it, or rings (ECMA-48)."""
_PROMPT = re.compile(r"Prompt: '\?' for help|\[Press enter to continue\]")
"""How Debian's installer waits for an answer on a console that is no screen (source: cdebconf, modules/frontend/text)."""
_CHOICE = re.compile(r"\s*\d+: ")
_GROWN = re.compile(r"(?:\s*\.\.\. *\d+%)+(?=\s*\.\.\. *\d+%)")
"""How far something was before, on a line that grows, as the text installer of Debian writes it: ``... 10%... 20%``."""


@dataclass(frozen=True)
class Installed:
    """A machine whose installed guest answers, and by what it did: ``agent``, or the words that were waited for."""

    record: Record
    by: str


async def install(
    spec: MachineSpec, *, answers: Path | None = None, until: str = "", timeout: float, progress: Progress = silent
) -> Installed:
    """Install a guest from the disc that is the image of ``spec`` on its first disk, and leave it running.

    ``answers`` are a file of answers in any form :mod:`tinamou.images.installer` knows. ``until`` are words on the
    console or the screen by which the installed guest is known; without them its agent has to answer. Each of both parts
    may take ``timeout`` seconds. Raises SpecError, ImageError, GuestError with what was seen last; the machine stays then,
    ended, with the last picture in its folder.
    """
    spec = first = _with_screen(spec)
    with tempfile.TemporaryDirectory(prefix="tinamou-install-") as folder:
        if answers is not None:
            iso, data = Path(spec.image).absolute(), read_given(answers, installer.MOST_ANSWERS)  # noqa: ASYNC240
            start = await in_thread(installer.prepared, iso, data, Path(folder))
            first, spec = answered(spec, start, uefi=has_variables(await in_thread(plan_only, spec)))
        record = await _installed(first, spec, timeout, progress)
    begun = await booting.begun_again(record)
    machine = Connected(begun.record, begun.plan, timeout=timeout)
    async with _ending(machine):
        await booting.until_launched(machine)
        await _ejected(machine)
        by = await _answers(machine, until, timeout, progress)
        await machine.release()
    return Installed(machine.record, by)


async def _installed(first: MachineSpec, spec: MachineSpec, timeout: float, progress: Progress) -> Record:
    """A machine that was started as ``first`` and that its installer has ended; it starts as ``spec`` says from now on."""
    begun = await booting.begun(first, ephemeral=False, progress=progress)
    machine = Connected(begun.record, begun.plan, timeout=timeout)
    try:
        async with _ending(machine):
            describe_later(begun.record, lambda now: from_disk(now, first, spec))  # whoever is killed meanwhile leaves it so
            await booting.until_launched(machine)
            await (await machine.session()).execute("set-action", reboot="shutdown")
            await _watched(machine, timeout, progress)
    finally:
        record = settled(newest(begun.record))
    return record


def has_variables(plan: Plan) -> bool:
    """Whether it is UEFI that starts the machine."""
    return any(one.props.get("node-name") == "flash1" for one in plan.elements)


def answered(spec: MachineSpec, start: installer.Start, *, uefi: bool) -> tuple[MachineSpec, MachineSpec]:
    """The machine as its installer is started so, and as it is afterwards. Raises SpecError for answers given twice.

    An installer's own kernel is started by UEFI where what it installs will be: it sees there for which firmware it writes
    a boot loader, and tells the firmware of it.
    """
    if start.disc and (windows.release(spec) is None or spec.windows.user):
        twice = Problem("windows.user", spec.windows.user, "the setup has answers already", "leave it or --answers out")
        none = Problem("os", spec.os or None, "these answers are for the setup of Windows", "--os windows-11")
        raise SpecError("nothing can be installed so", problems=[twice if spec.windows.user else none])
    if start.kernel and spec.boot.checked:
        reason = "answers go with the installer's own kernel, which the firmware would have to trust by itself"
        none = Problem("boot.secure", True, reason, "leave Secure Boot out, or --answers: somebody answers then")
        raise SpecError("nothing can be installed so", problems=[none])
    seed = spec.seed
    if start.ignition or start.combustion:
        seed = late.replace(seed, ignition=start.ignition or seed.ignition, combustion=start.combustion or seed.combustion)
        spec = late.replace(spec, seed=seed)
    first = spec
    if start.kernel:
        cmdline = f"{spec.boot.cmdline} {start.cmdline}".strip()
        boot = late.replace(spec.boot, firmware="uefi" if uefi else "direct", order="", menu=False)
        first = late.replace(spec, boot=late.replace(boot, kernel=start.kernel, initrd=start.initrd, cmdline=cmdline))
    if start.user_data:
        first = late.replace(first, seed=SeedSpec(user_data=start.user_data, agent="none"))
    if start.disc:
        first = late.replace(first, disk=(*first.disk, DiskSpec(path=start.disc, interface="cdrom")))
    return first, spec


def from_disk(now: MachineSpec, first: MachineSpec, spec: MachineSpec) -> MachineSpec:
    """The machine without its installer: what it is ``now``, having started as ``first``, started as ``spec`` says."""
    boot = late.replace(now.boot, firmware=spec.boot.firmware, order=spec.boot.order, menu=spec.boot.menu)
    boot = late.replace(boot, kernel="", initrd="", cmdline="")
    discs = [disk for disk in first.disk if disk not in spec.disk]
    seed = spec.seed if now.seed == first.seed else now.seed
    return late.replace(now, boot=boot, seed=seed, disk=tuple(disk for disk in now.disk if disk not in discs))


def _with_screen(spec: MachineSpec) -> MachineSpec:
    """With the disc last in the order, and a screen to look at. Raises SpecError for what nothing can be installed with."""
    problems = []
    if not any(disk.interface != "cdrom" and not disk.readonly for disk in spec.disk):
        problems.append(Problem("disk", None, "there is none to install to", "--disk size=40G"))
    if spec.boot.kernel or spec.boot.order:
        problems.append(Problem("boot", None, "what is started when is decided here", "leave kernel and order out"))
    if problems:
        raise SpecError("nothing can be installed so", problems=problems)
    numbered = [f"disk{number}" for number, disk in enumerate(spec.disk, 1) if disk.interface != "cdrom"]
    boot = late.replace(spec.boot, order=",".join([*numbered, "disk0"]))
    seen = spec if spec.display.type != "none" else late.replace(spec, display=late.replace(spec.display, type="vnc"))
    return late.replace(seen, boot=boot)


@contextlib.asynccontextmanager
async def _ending(machine: Connected):  # type: ignore[no-untyped-def]
    """A machine of which something failed ends; its record and its disks stay."""
    async with IfFailed(machine.end):
        yield
    await machine.close()


async def _watched(machine: Connected, timeout: float, progress: Progress) -> None:
    """Until the guest has restarted or shut down, telling what is seen; a disc that wants a key is given one."""
    began = time.monotonic()
    by_firmware = not any(flag.name == "kernel" for flag in machine.plan.flags)
    while not await gone(machine.record.process, _LOOK):
        starts = by_firmware and time.monotonic() < began + _FIRMWARE_SECONDS
        if starts and _WANTS_A_KEY.search(await _screen(machine)):
            with contextlib.suppress(TinamouError):  # it has gone on, or ended
                await seeing.press(machine, ["ret"])
        progress(f"installing: {await _seen(machine)}", None)
        if time.monotonic() > began + timeout:
            raise await _failed(machine, f"the installer in {machine.name} did not end within {timeout:.0f} s")
    await machine.close()
    await in_thread(machine.ended)


async def _answers(machine: Connected, until: str, timeout: float, progress: Progress) -> str:
    """By what the installed guest is seen to run."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if until and until in f"{await _screen(machine)}\n{last_lines(machine.record.path / files.SERIAL_LOG, 40)}":
            return until
        if not until:
            with contextlib.suppress(TinamouError, TimeoutError):
                await machine.agent.wait(_AGENT_SECONDS)
                change(machine.record, agent=True)
                return "agent"
        progress(f"starting what was installed: {await _seen(machine)}", None)
        if not machine.record.running:
            raise StateError(f"{machine.name} ended instead of answering", why="its guest shut down, or QEMU was ended")
        await asyncio.sleep(_LOOK)
    awaited = f"show {until!r}" if until else "answer by qemu-guest-agent (have it installed, or say --until)"
    raise await _failed(machine, f"the guest installed in {machine.name} did not {awaited} within {timeout:.0f} s")


async def _screen(machine: Connected) -> str:
    """The text on the screen; empty where there is none."""
    try:
        return "\n".join(seeing.text_of(machine, await seeing.screenshot(machine))).strip()
    except TinamouError:
        return ""


async def _seen(machine: Connected) -> str:
    """The last line of the console, or of the screen where that is silent."""
    console = last_said(last_lines(machine.record.path / files.SERIAL_LOG, _LINES))
    return console or last_said(await _screen(machine)) or "nothing is said"


def last_said(text: str) -> str:
    """The last line of a console with something to read, cut to what a line of progress has room for; empty without one.

    Of an installer that waits for an answer it is the question.
    """
    said = [line.strip() for line in _CONTROLS.sub("\n", text).splitlines() if len(line.strip()) > 1]
    if said and _PROMPT.match(said[-1]):
        asked = [line for line in said if not _PROMPT.match(line) and not _CHOICE.match(line)]
        return f"it waits for an answer on its console: {asked[-1] if asked else said[-1]}"[:_WIDE]
    return _GROWN.sub("", said[-1])[:_WIDE] if said else ""


async def _failed(machine: Connected, what: str) -> GuestError:
    """The error, with what was seen last; the picture is in the machine's folder."""
    screen = await _screen(machine)
    path = machine.record.path / LAST_PICTURE
    with contextlib.suppress(TinamouError):
        path.write_bytes((await seeing.screenshot(machine)).png())
    evidence = {"screen": screen, "console": last_lines(machine.record.path / files.SERIAL_LOG)}
    return GuestError(what, evidence=evidence, fix=f"the last picture: {path}; tinamou rm {machine.name} gives it up")


async def _ejected(machine: Connected) -> None:
    """The disc is out of its drive: what was installed does not start the installer again."""
    session = await machine.session()
    drives = [one.props["id"] for one in machine.plan.elements if str(one.props.get("driver", "")) in ("ide-cd", "scsi-cd")]
    for drive in drives[:1]:
        await session.execute("eject", id=drive, force=True)

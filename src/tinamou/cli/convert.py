"""The verb ``convert``: a machine of another tool as a machine file, with the reason for every difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinamou.cli import after_dashes, output
from tinamou.cli.grammar import Force, Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import SpecError, StateError

if TYPE_CHECKING:
    from tinamou.convert.assemble import Converted


def command(
    source: Path | None = None,
    *,
    output_file: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    import_: Annotated[bool, Parameter(name="--import", negative="")] = False,
    name: str = "",
    trust: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    force: Force = False,
    to: str = "",
    json: Switch = False,
) -> None:
    """Make a machine file of another tool's machine; or another tool's description of a machine.

    tinamou convert start.sh                        a shell script with a QEMU command line; nothing of it is run.
    tinamou convert -- qemu-system-x86_64 -m 4G …   the command line itself.
    tinamou convert vm.xml                          a machine of libvirt, VMware (.vmx, .ovf, .ova), VirtualBox, KubeVirt …

    The machine file comes on stdout, on stderr what is different and why, the dearest first: what is lost, what somebody
    should look at, what is done in another way, what tinamou does by itself.

    Parameters
    ----------
    source
        The file; its format is told by its content.
    output_file
        Write the machine file here.
    import_
        Copy the disks as well: the first into tinamou's images, the others beside the machine file. A Linux whose disk
        was on another bus is looked at and mended, where it would not find it.
    name
        The machine's name, and its image's.
    trust
        A further folder that disks and their backing files may lie in; may be repeated.
    force
        Overwrite the output file.
    to
        Write for another tool instead: libvirt, qemu (a command line), script (a shell script), kubevirt, proxmox, incus,
        ovf, ova (with its disks; needs --output), vagrant (with --output a box, with its disks), packer. The source is a
        machine's name, or a machine file.
    json
        Print machine and notes as JSON.
    """
    from tinamou.convert.writing import text
    from tinamou.machine.inward import tried

    if output_file and output_file.exists() and not force:
        raise StateError(f"{output_file} exists already", fix="pass --force to overwrite it, or name another file")
    if to:
        _out(source, to, output_file, import_ or bool(name or trust), json=json)
        return
    converted = _converted(source, name, trust, later=import_)
    if import_:
        _import(converted, source, output_file, trust)
        converted.spec = None  # its disks are others now
    elif any(placed.disk.part for placed in converted.disks):
        raise SpecError(f"the disks of {source} are inside it", why="a machine cannot start from there", fix="add --import")
    tried(converted)
    source_name = " ".join(f"{source.name}, {converted.source}".splitlines()) if source else converted.source
    written = text(converted.machine, f"Converted from {source_name}.")
    if output_file:
        output_file.write_text(written)
    if json:
        output.print_json(_plain(converted))
        return
    if not output_file:
        print(written, end="")
    for note in converted.notes:
        output.say(str(note))


def _out(source: Path | None, to: str, output_file: Path | None, more: bool, *, json: bool) -> None:
    """A machine of tinamou, written for another tool."""
    from tinamou.convert.out import formats
    from tinamou.machine.outward import of_name, write_box, write_ova

    if source is None or more:
        fix = "tinamou convert NAME --to libvirt"
        raise SpecError("--to writes a machine: it goes with a name or a machine file, and with -o and --json", fix=fix)
    spec, place = of_name(source)
    if to == "ova" and output_file is None:
        raise SpecError("an OVA is written to a file", fix=f"tinamou convert {source} --to ova -o {source.stem}.ova")
    packed = {"ova": write_ova, "vagrant": write_box}.get(to)
    if packed and output_file:
        output_file.unlink(missing_ok=True)  # --force was asked for, where it is there
        written = run_until_done(packed(spec, place, output_file, output.progress))
    else:
        written = formats.write(spec, place, to)
    if output_file and not packed:
        output_file.write_text(written.text)
    if json:
        output.print_json({"text": written.text, "notes": [note._asdict() for note in written.notes]})
        return
    if not output_file:
        print(written.text, end="")
    for note in written.notes:
        output.say(str(note))


def _converted(source: Path | None, name: str, trust: tuple[Path, ...], *, later: bool) -> Converted:
    from tinamou.machine import inward

    words = after_dashes.words
    if (source is None) == (words is None):
        fix = "tinamou convert FILE, or tinamou convert -- qemu-system-x86_64 …"
        raise SpecError("convert needs one source: a file, or a command line after --", fix=fix)
    if source is None:
        return inward.of_words(words or [], name=name, trust=trust)
    return inward.of_file(source, name=name, trust=trust, later=later)


def _import(converted: Converted, source: Path | None, output_file: Path | None, trust: tuple[Path, ...]) -> None:
    from tinamou.convert import files
    from tinamou.convert.values import machine_name
    from tinamou.machine.gather import native_arch
    from tinamou.machine.mending import mend_imported

    name = converted.machine.get("name") or machine_name((output_file or source or Path("machine")).stem) or "machine"
    beside = (output_file.resolve().parent if output_file else Path.cwd()).resolve()
    arch = native_arch()
    run_until_done(files.import_disks(converted, name, beside, arch=arch, trusted=trust, progress=output.progress))
    run_until_done(mend_imported(converted, arch=arch, progress=output.progress))


def _plain(converted: Converted) -> dict[str, Any]:
    notes = [note._asdict() for note in converted.notes]
    disks = [{"file": one.disk.file, "field": one.field, "part": one.disk.part} for one in converted.disks]
    return {"source": converted.source, "machine": converted.machine, "disks": disks, "notes": notes}

"""The verbs below ``image``: ls, build, pull, import, inject, show, check, rm, convert, create, resize, rebase."""

from __future__ import annotations

import json as json_
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Force, Group, Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import StateError
from tinamou.facts import ImageFacts, files
from tinamou.fields import size_of
from tinamou.images import store
from tinamou.images.store import Kept
from tinamou.state import machines

if TYPE_CHECKING:
    from tinamou.machine.injecting import Injected

app: Group = Group()


@app.command
def ls(*, all: Switch = False, json: Switch = False) -> None:
    """List the images that are here.

    Parameters
    ----------
    all
        Every name that can be built or downloaded as well.
    """
    rows: list[dict[str, object]] = [
        {
            "name": item.name,
            "arch": item.arch,
            "size": f"{item.size.mib} MiB",
            "built": time.strftime("%Y-%m-%d", time.localtime(item.built)),
            "state": "current" if item.current else "layer" if item.path.name.startswith("layer-") else "older",
            "path": str(item.path),
        }
        for item in store.kept()
    ]
    rows += _missing({(row["name"], row["arch"]) for row in rows}) if all else []
    output.table(rows, ("name", "arch", "size", "built", "state", "path"), json=json)


def _missing(here: set[tuple[object, object]]) -> list[dict[str, object]]:
    from tinamou.images import catalog, debian, resolve, tiny

    built = [
        (name, arch) for name in resolve.names() for arch in (tiny.ARCHES if name in ("tiny", "mender") else debian.ARCHES)
    ]
    offered = [(entry.name, entry.arch) for entry in catalog.catalog_entries()]
    states = {**dict.fromkeys(built, "can be built"), **dict.fromkeys(offered, "can be pulled")}
    return [
        {"name": name, "arch": arch, "state": state} for (name, arch), state in states.items() if (name, arch) not in here
    ]


@app.command
def build(name: str = "tiny", /, *, arch: str = "", refresh: Switch = False, json: Switch = False) -> None:
    """Build a guest, or find that it is here already.

    Parameters
    ----------
    name
        tiny, debian, debian:trixie; debian+nginx+jq with packages of its archive beside; or a file that describes an image
        of your own, web.toml, with its base, packages, files and commands.
    arch
        The guest's architecture; the host's when left out.
    refresh
        Ask the archive for newer packages, and make every layer anew.
    """
    from tinamou.machine.gather import native_arch

    if name.endswith(".toml"):
        from tinamou.machine.image_building import build_file

        done = run_until_done(build_file(Path(name), arch=arch, refresh=refresh, progress=output.progress))
        output.say(f"{done.image.name}: {done.made} layers made, {done.found} were here")
        _print(done.image, json)
        return
    from tinamou.images.resolve import resolve

    facts = resolve(name, arch or native_arch(), progress=output.progress, refresh=refresh)
    output.end_progress()
    _print(facts, json)


@app.command
def pull(
    name: str,
    /,
    *,
    arch: str = "",
    from_: Annotated[str, Parameter(name="--from")] = "",
    refresh: Switch = False,
    require_signature: Switch = False,
    keyring: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    json: Switch = False,
) -> None:
    """Download a vendor's image and verify it; with --from, have it, or an image of its own, from another host.

    Parameters
    ----------
    name
        A name of the catalogue, ubuntu:24.04.
    arch
        The guest's architecture; the host's when left out.
    from_
        A host of tinamou host, which pulls the image first where it lacks it: only blocks that no build of that name here
        has go over. It is checked by the vendor's checksum and signature all the same, which are asked of the vendor.
    refresh
        Ask the vendor for a newer build.
    require_signature
        Refuse an image whose signature cannot be checked; a wrong signature is always refused.
    keyring
        A file of OpenPGP keys to trust in addition; may be repeated.
    """
    from tinamou.images import pull as pulling
    from tinamou.images.download import progress_bar
    from tinamou.machine.gather import native_arch

    checks: dict[str, Any] = {"refresh": refresh, "require_signature": require_signature, "keyrings": keyring}
    arch = arch or native_arch()
    if from_:
        from tinamou.fleet.images import pull_from

        facts = pull_from(from_, name, arch, notice=output.warn, progress=output.progress, **checks)
        output.end_progress()
    else:
        with progress_bar(name) as progress:
            facts = pulling.pull(name, arch, progress=progress, notice=output.warn, **checks)
    _print(facts, json)


@app.command
def show(name: str, /, *, arch: str = "", json: Switch = False) -> None:
    """Show what is known about an image, without building or downloading it.

    Parameters
    ----------
    name
        A name, or the path of an image file.
    arch
        The guest's architecture; the host's when left out.
    """
    from tinamou.images.resolve import resolve
    from tinamou.machine.gather import native_arch

    _print(resolve(name, arch or native_arch(), build=False), json)


@app.command
def check(name: str, /, *, arch: str = "") -> None:
    """Examine an image; a downloaded one is also compared with the checksum it came with.

    Parameters
    ----------
    name
        A name, or the path of an image file.
    arch
        The guest's architecture; the host's when left out.
    """
    from tinamou.images import pull as pulling
    from tinamou.images.inspect import inspect_image
    from tinamou.images.resolve import resolve
    from tinamou.machine.gather import native_arch

    facts = resolve(name, arch or native_arch(), build=False)
    if not facts.built:
        raise StateError(f"the image {name} is not here", fix=f"tinamou image pull {name}, or tinamou image build {name}")
    if facts.disk:
        inspect_image(facts.disk, arch=facts.arch)
    if facts.disk and Path(facts.disk).with_name("origin.json").exists():
        pulling.check(facts)
    print(f"{facts.name} ({facts.arch}) is in order")


@app.command
def rm(name: str, /, *, arch: str = "", force: Force = False) -> None:
    """Remove an image that was built or downloaded, every build of it.

    Parameters
    ----------
    name
        Its name.
    arch
        Only for this architecture.
    force
        Even when machines rest on it; they will not start any more.
    """
    from tinamou.images import layers, store

    chosen = [item for item in store.kept() if item.name == name and arch in ("", item.arch)]
    if not chosen:
        raise StateError(f"there is no image {name} here", fix="tinamou image ls shows those that are")
    users = {machine for item in chosen for machine in _resting_on(item)}
    if users and not force:
        raise StateError(
            f"machines rest on the image {name}: {', '.join(sorted(users))}", fix="tinamou rm them first, or pass --force"
        )
    if (images := layers.resting_on(name, [item.path for item in chosen])) and not force:
        fix = "tinamou image rm them first, or pass --force"
        raise StateError(f"images rest on the image {name}: {', '.join(images)}", fix=fix)
    for item in chosen:
        store.remove(item)
        print(f"removed {item.name} {item.arch}, {item.size.mib} MiB")


@app.named("import")
def import_(file: Path, name: str, *, arch: str = "", like: str = "", json: Switch = False) -> None:
    """Make a base image of a file (qcow2, raw, vmdk, vhdx, vdi, vpc, parallels), shared by all machines made from it.

    Parameters
    ----------
    file
        The image file.
    name
        Its name from now on: tinamou run NAME.
    arch
        The guest's architecture, where the image does not tell.
    like
        An image whose guest has the same agent, ssh server, user and first-boot configuration: debian
    """
    from tinamou.images.importing import import_image
    from tinamou.images.resolve import resolve
    from tinamou.machine.gather import native_arch

    known = resolve(like, arch or native_arch(), build=False) if like else None
    made = run_until_done(import_image(file, name, arch=arch, like=known, progress=output.progress))
    if made.windows and "viostor" not in made.drivers:
        fix = f"tinamou image inject {name} NAME --drivers virtio-win.iso"
        output.warn(f"{made.windows} has no driver that is loaded at boot for a disk on virtio (viostor): {fix}")
    _print(made, json)


@app.command
def inject(source: str, name: str, /, *, drivers: Path, json: Switch = False) -> None:
    """Make an image of an installed Windows that starts from virtio: drivers and registry are put in, nothing is booted.

    Parameters
    ----------
    source
        The image it is on, by its name, or the file of a disk; it stays as it is.
    name
        The new image's name: tinamou run NAME --os windows-11.
    drivers
        The disc virtio-win.iso.
    """
    from tinamou.machine.injecting import inject as inject_drivers

    done = run_until_done(inject_drivers(source, name, drivers, progress=output.progress))
    _say_injected(done)
    _print(done.image, json)


def _say_injected(done: Injected) -> None:
    if done.done is None:
        output.say(f"{done.image.name} had been made of these already")
        return
    output.warn(*done.done.notes)
    values, files = len(done.done.edits), len(done.done.copies) + len(done.done.texts)
    output.say(f"{done.windows.name}: {values} values of the registry, {files} files; {', '.join(done.done.drivers)}")


@app.command
def convert(source: Path, target: Path, *, format: str = "") -> None:
    """Write an image in another format, and compare both.

    Parameters
    ----------
    source
        The image file.
    target
        The new file.
    format
        Its format; by the ending of its name when left out.
    """
    from tinamou.images import importing
    from tinamou.images.empty import format_of

    run_until_done(importing.convert(source, target, format_of(target, format), progress=output.progress))


@app.command
def create(file: Path, size: str, *, format: str = "") -> None:
    """Make an empty image.

    Parameters
    ----------
    file
        The new file.
    size
        Its size, for example 20G.
    format
        qcow2, raw, vmdk, vhdx, vdi or vpc; by the ending of its name when left out.
    """
    from tinamou.images import empty

    run_until_done(empty.create(file, size_of(size, "SIZE"), format))


@app.command
def resize(file: Path, size: str, *, shrink: Switch = False) -> None:
    """Give an image file another size; the disks of a running machine: tinamou disk resize.

    Parameters
    ----------
    file
        The image file.
    size
        Its new size, for example 40G.
    shrink
        Allow a smaller one, which cuts off the end.
    """
    from tinamou.images import importing

    run_until_done(importing.resize(file, size_of(size, "SIZE"), shrink=shrink))


@app.command
def rebase(file: Path, base: Path | None = None) -> None:
    """Put an overlay on another base, or on none; what it reads as stays.

    Parameters
    ----------
    file
        The overlay.
    base
        What it rests on from now on; nothing when left out.
    """
    from tinamou.images import importing

    run_until_done(importing.rebase(file, base, progress=output.progress))


def _resting_on(item: Kept) -> Iterator[str]:
    """Machines whose image lies in that folder."""
    for record in machines.machines():
        facts = json_.loads(record.file(files.IMAGE).read_text()) if record.file(files.IMAGE).exists() else {}
        if any(str(facts.get(key, "")).startswith(f"{item.path}/") for key in ("disk", "kernel", "initrd")):
            yield record.name


def _print(facts: ImageFacts, json: bool) -> None:
    data = late.asdict(facts)
    if json:
        output.print_json(data)
        return
    for key, value in data.items():
        if value not in ("", (), None):
            print(f"{key:>12}  {', '.join(value) if isinstance(value, tuple) else value}")

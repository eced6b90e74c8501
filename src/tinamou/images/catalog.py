"""The catalogue of vendors' cloud images: what there is, where it lies, how it is checked; data, nothing is fetched here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tinamou.errors import ImageError, Problem
from tinamou.late import dataclass, replace
from tinamou.system.toml import toml_of

__all__ = ["FORMATS", "CatalogEntry", "SigningKey", "catalog_entries", "catalog_files", "find", "named", "read_catalog"]

ALGORITHMS = {"sha256": 64, "sha512": 128}
STYLES = ("sums", "bsd", "beside")
FORMATS = ("qcow2", "raw", "iso", "qcow2.xz", "raw.xz", "raw.zst", "qcow2.zst")
FIRMWARE = ("bios", "uefi")
SEEDS = ("nocloud", "")
RESERVED = ("debian", "tiny")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(:[a-z0-9][a-z0-9._-]*)?")
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")


@dataclass(frozen=True)
class SigningKey:
    """A vendor's OpenPGP key: full fingerprints of its primary keys, files it is found in, the package that brings them."""

    name: str
    owner: str
    fingerprints: tuple[str, ...]
    keyrings: tuple[str, ...] = ()
    package: str = ""


@dataclass(frozen=True)
class CatalogEntry:
    """One image of a vendor for one architecture.

    ``style`` says how to read the checksum file: ``sums`` (lines of sha256sum), ``bsd`` (``SHA256 (file) = …``), ``beside``
    (a file that belongs to this image alone). ``digest`` (``sha256:…``) pins an image that never changes, then no checksum
    file is needed. ``signature_url`` is ``inline`` for a clear-signed checksum file; ``signs`` is ``checksums`` or
    ``image``. ``boots`` is any of ``bios``, ``uefi``; ``seed`` the kind of first-boot configuration it reads; ``agent``
    whether qemu-guest-agent starts by itself. ``source`` is the catalogue file it came from.
    """

    name: str
    arch: str
    url: str
    format: str = "qcow2"
    algorithm: str = "sha256"
    checksum_url: str = ""
    style: str = "sums"
    digest: str = ""
    signature_url: str = ""
    signs: str = "checksums"
    key: SigningKey | None = None
    user: str = ""
    boots: tuple[str, ...] = ()
    seed: str = "nocloud"
    agent: bool = False
    aliases: tuple[str, ...] = ()
    vendor: str = ""
    note: str = ""
    source: str = ""

    @property
    def file(self) -> str:
        """The last part of the URL: the name under which the checksum file knows the image."""
        return self.url.rpartition("/")[2]


def catalog_files() -> list[Path]:
    """The catalogue files that exist, weakest first: the packaged one, /etc/tinamou, ``$XDG_CONFIG_HOME/tinamou``."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    own = [Path("/etc/tinamou/catalog.toml"), config / "tinamou" / "catalog.toml"]
    return [Path(__file__).with_name("catalog.toml"), *(path for path in own if path.is_file())]


def catalog_entries(*, files: Iterable[Path] | None = None) -> list[CatalogEntry]:
    """All images, ordered by name; a later file replaces an entry of an earlier one.

    An alias that a later file uses is taken away from the entry of the earlier file. Raises ImageError for a bad file.
    """
    known: dict[tuple[str, str], CatalogEntry] = {}
    keys: dict[str, SigningKey] = {}
    for path in catalog_files() if files is None else files:
        added = read_catalog(path, keys)
        taken = {(alias, entry.arch) for entry in added for alias in (entry.name, *entry.aliases)}
        for key, old in known.items():
            kept = tuple(alias for alias in old.aliases if (alias, old.arch) not in taken)
            known[key] = replace(old, aliases=kept)
        known.update({(entry.name, entry.arch): entry for entry in added})
    return sorted(known.values(), key=lambda e: (e.name, e.arch))


def find(name: str, arch: str, *, files: Iterable[Path] | None = None) -> CatalogEntry:
    """The entry of that name or alias. Raises ImageError that names what there is instead."""
    entries = catalog_entries(files=files)
    found = named(name, entries)
    for entry in found:
        if entry.arch == arch:
            return entry
    if found:
        have = ", ".join(sorted({entry.arch for entry in found}))
        raise ImageError(
            f"there is no {name} for {arch}",
            why=f"the catalogue has it for {have}",
            fix=f"choose --arch {found[0].arch}, or add the image to your own catalogue file",
        )
    import difflib

    everything = {alias for entry in entries if entry.arch == arch for alias in (entry.name, *entry.aliases)}
    near = difflib.get_close_matches(name, sorted(everything), n=3, cutoff=0.5)
    raise ImageError(
        f"no image is called {name!r}",
        why="it is neither in the catalogue nor a file",
        fix=(f"did you mean {', '.join(near)}? " if near else "") + "`tinamou image ls --all` shows every name",
    )


def named(name: str, entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
    """The entries of that name or alias, for every architecture."""
    return [entry for entry in entries if name == entry.name or name in entry.aliases]


def read_catalog(path: Path, keys: dict[str, SigningKey] | None = None) -> list[CatalogEntry]:
    """Read one catalogue file; its keys are added to ``keys``, and it may use those that are there.

    Raises ImageError with every problem in it at once, each with its place.
    """
    keys = {} if keys is None else keys
    try:
        data: dict[str, object] = toml_of(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(
            f"the catalogue {path} cannot be read", why=str(error), fix="correct the file or remove it"
        ) from error
    reader = _Reader(str(path))
    for name, value in reader.table(data, "key").items():
        keys[name] = reader.key(name, value)
    images = data.get("image", [])
    entries: list[CatalogEntry] = []
    if isinstance(images, list):
        for number, image in enumerate(images):
            entries += reader.image(f"image[{number}]", image, keys)
    else:
        reader.wrong("image", images, "not a list of tables", "write [[image]]")
    for name in data.keys() - {"key", "image"}:
        reader.wrong(name, None, "unknown table", "use [key.NAME] and [[image]]")
    if reader.problems:
        raise ImageError(f"the catalogue {path} has errors", problems=reader.problems, fix="see docs/reference/catalogue.md")
    return entries


_ARCH_FIELDS = frozenset({"file", "digest", "boots", "note", "format", "agent", "checksum", "signature", "user"})
_IMAGE_FIELDS = frozenset(
    {"name", "aliases", "vendor", "base", "checksum", "algorithm", "style", "signature", "signs", "key", "user", "boots"}
    | {"seed", "agent", "note", "format", "arch"}
)


class _Reader:
    """Turns tables into entries and collects what is wrong on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def wrong(self, path: str, value: object, reason: str, fix: str = "") -> None:
        self.problems.append(Problem(path, value, reason, fix))

    def table(self, data: Mapping[str, object], name: str) -> dict[str, object]:
        value = data.get(name, {})
        if isinstance(value, dict):
            return value
        self.wrong(name, value, "not a table")
        return {}

    def text(self, data: Mapping[str, object], path: str, name: str, default: str = "") -> str:
        value = data.get(name, default)
        if isinstance(value, str):
            return value
        self.wrong(f"{path}.{name}", value, "not a text")
        return default

    def texts(self, data: Mapping[str, object], path: str, name: str) -> tuple[str, ...]:
        value = data.get(name, [])
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self.wrong(f"{path}.{name}", value, "not a list of texts")
        return ()

    def choice(self, data: Mapping[str, object], path: str, name: str, allowed: tuple[str, ...]) -> str:
        value = self.text(data, path, name, allowed[0])
        if value not in allowed:
            self.wrong(f"{path}.{name}", value, "not known", f"one of {', '.join(filter(None, allowed))}")
        return value

    def key(self, name: str, value: object) -> SigningKey:
        path = f"key.{name}"
        if not isinstance(value, dict):
            self.wrong(path, value, "not a table")
            return SigningKey(name, "", ())
        self.unknown(path, value, {"owner", "fingerprints", "keyrings", "package"})
        prints = tuple(text.replace(" ", "").upper() for text in self.texts(value, path, "fingerprints"))
        for bad in (text for text in prints if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", text)):
            self.wrong(f"{path}.fingerprints", bad, "not a full fingerprint", "40 hexadecimal digits")
        if not prints:
            self.wrong(f"{path}.fingerprints", None, "missing", "name the primary key's fingerprint")
        owner, package = self.text(value, path, "owner"), self.text(value, path, "package")
        return SigningKey(name, owner, prints, self.texts(value, path, "keyrings"), package)

    def unknown(self, path: str, value: Mapping[str, object], fields: Iterable[str]) -> None:
        allowed = sorted(fields)
        for name in sorted(value.keys() - set(allowed)):
            import difflib

            near = difflib.get_close_matches(name, allowed, n=1)
            self.wrong(f"{path}.{name}", value[name], "unknown field", f"did you mean {near[0]}?" if near else "")

    def image(self, path: str, value: object, keys: Mapping[str, SigningKey]) -> list[CatalogEntry]:
        if not isinstance(value, dict):
            self.wrong(path, value, "not a table")
            return []
        self.unknown(path, value, _IMAGE_FIELDS)
        names = (self.text(value, path, "name"), *self.texts(value, path, "aliases"))
        for name in names:
            if name in RESERVED:
                self.wrong(f"{path}.name", name, "this name belongs to a guest tinamou builds itself", "choose another")
            elif not _NAME.fullmatch(name):
                self.wrong(f"{path}.name", name, "not a name", "lower case, for example ubuntu:24.04")
        key_name = self.text(value, path, "key")
        if key_name and key_name not in keys:
            self.wrong(f"{path}.key", key_name, "no such [key]", f"known are {', '.join(sorted(keys))}")
        arches = self.table(value, "arch")
        if not arches:
            self.wrong(f"{path}.arch", None, "missing", "at least one of [image.arch.x86_64] …")
        found = (self.entry(f"{path}.arch.{arch}", arch, value, own, keys.get(key_name)) for arch, own in arches.items())
        return [replace(entry, name=names[0], aliases=names[1:]) for entry in found if entry]

    def entry(
        self, path: str, arch: str, image: dict[str, object], own: object, key: SigningKey | None
    ) -> CatalogEntry | None:
        if not isinstance(own, dict):
            self.wrong(path, own, "not a table", '{ file = "…" }')
            return None
        self.unknown(path, own, _ARCH_FIELDS)
        data = {**image, **own}
        places = {"arch": arch, "file": self.text(data, path, "file")}
        base = _fill(self.text(data, path, "base"), places)
        signature = _fill(self.text(data, path, "signature"), places)
        checksum = _fill(self.text(data, path, "checksum"), places)
        entry = CatalogEntry(
            name="",
            arch=arch,
            url=_join(base, places["file"]),
            format=self.choice(data, path, "format", FORMATS),
            algorithm=self.choice(data, path, "algorithm", tuple(ALGORITHMS)),
            checksum_url=_join(base, checksum),
            style=self.choice(data, path, "style", STYLES),
            digest=self.text(data, path, "digest").lower(),
            signature_url=signature if signature == "inline" else _join(base, signature),
            signs=self.choice(data, path, "signs", ("checksums", "image")),
            key=key,
            user=self.text(data, path, "user"),
            boots=self.texts(data, path, "boots"),
            seed=self.choice(data, path, "seed", SEEDS),
            agent=data.get("agent", False) is True,
            vendor=self.text(data, path, "vendor"),
            note=self.text(data, path, "note"),
            source=self.source,
        )
        self.check(path, entry)
        return entry

    def check(self, path: str, entry: CatalogEntry) -> None:
        """What only shows once an entry is whole."""
        urls = {"file": entry.url, "checksum": entry.checksum_url, "signature": entry.signature_url}
        for name, url in urls.items():
            if url and url != "inline" and not re.match(r"https?://[^/]+/.", url):
                self.wrong(f"{path}.{name}", url, "not an http or https URL", "set base, or write the whole URL")
        if not entry.file:
            self.wrong(f"{path}.file", None, "missing")
        if not (entry.checksum_url or entry.digest):
            self.wrong(f"{path}.checksum", None, "nothing to check the image against", "name a checksum file or a digest")
        if entry.digest and not _DIGEST.fullmatch(entry.digest):
            self.wrong(f"{path}.digest", entry.digest, "not a digest", "sha256: and 64 hexadecimal digits")
        if entry.signature_url and not entry.key:
            self.wrong(f"{path}.key", None, "a signature without a key", "name a [key]")
        for bad in set(entry.boots) - set(FIRMWARE):
            self.wrong(f"{path}.boots", bad, "not known", "bios or uefi")
        if not entry.boots:
            self.wrong(f"{path}.boots", None, "missing", '["bios", "uefi"] or one of them')


def _fill(text: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


def _join(base: str, name: str) -> str:
    return name if not name or "://" in name else base.rstrip("/") + "/" + name

"""From a name in the catalogue to a checked image on this host; an image is whole and checked, or it is not there."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tinamou.digest import file_digest
from tinamou.errors import ImageError
from tinamou.facts.image import ImageFacts
from tinamou.images import catalog, store
from tinamou.images.catalog import CatalogEntry
from tinamou.images.download import Progress, discard, download
from tinamou.images.http import Policy, client, fetch_bytes
from tinamou.images.pulled import Origin, cached, described
from tinamou.images.signature import Signature, checkable, signed_text, verify_detached, verify_inline
from tinamou.images.verify import check_format, expected_digest, unpack
from tinamou.late import asdict, dataclass, replace
from tinamou.system.replaced import replace_text
from tinamou.units import Size

__all__ = ["Bring", "Origin", "check", "origin", "pull", "pull_entry"]

Notice = Callable[[str], None]
Bring = Callable[[Path, str], None]
"""Makes that the image's file, from elsewhere, which should have the vendor's digest (``sha256:…``)."""


def pull(
    name: str,
    arch: str,
    *,
    progress: Progress | None = None,
    notice: Notice | None = None,
    refresh: bool = False,
    require_signature: bool = False,
    keyrings: Sequence[Path] = (),
    policy: Policy | None = None,
    files: Iterable[Path] | None = None,
    bring: Bring | None = None,
) -> ImageFacts:
    """The vendor's image of that name, downloaded and checked first when it is not here.

    ``progress`` is called with (bytes done, bytes in all or 0, bytes per second), ``notice`` with sentences worth showing.
    ``refresh`` asks the vendor for a newer build. With ``require_signature`` an image whose signature cannot be checked is
    an error; a wrong signature always is. ``keyrings`` are OpenPGP key files to trust in addition. ``bring`` has the file
    from elsewhere, where it is checked as a download is. Raises ImageError.
    """
    entry = catalog.find(name, arch, files=files)
    here = None if refresh else cached(entry)
    if here and (not require_signature or origin(here).signer):
        return here
    return pull_entry(
        entry,
        progress=progress,
        notice=notice,
        require_signature=require_signature,
        keyrings=keyrings,
        policy=policy,
        bring=bring,
    )


def pull_entry(
    entry: CatalogEntry,
    *,
    progress: Progress | None = None,
    notice: Notice | None = None,
    require_signature: bool = False,
    keyrings: Sequence[Path] = (),
    policy: Policy | None = None,
    bring: Bring | None = None,
) -> ImageFacts:
    """Download and check ``entry``, whatever is here; an unchanged image is not downloaded again. Raises ImageError."""
    say: Notice = notice or (lambda _: None)
    wait = f"another process downloads {entry.name}: waiting for it"
    with store.held(entry.name, entry.arch, lambda: say(wait)) as folder:
        return _Pull(entry, folder, progress, say, require_signature, tuple(keyrings), policy or Policy(), bring).run()


def origin(facts: ImageFacts) -> Origin:
    """Where a pulled image came from. Raises ImageError when that is not written beside it."""
    path = Path(facts.disk).with_name("origin.json")
    try:
        return Origin(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ImageError(f"nobody wrote down where {facts.name} came from", why=str(error), fix="pull it again") from error


def check(facts: ImageFacts) -> Origin:
    """Read a pulled image again and compare it with what was checked. Raises ImageError when it has changed since."""
    known = origin(facts)
    algorithm, _, wanted = known.content.partition(":")
    have = file_digest(Path(facts.disk), algorithm)
    if have != wanted:
        raise ImageError(
            f"{facts.disk} has changed since it was pulled",
            why=f"its {algorithm} was {wanted} and is {have}",
            fix=f"`tinamou image rm {facts.name}` and pull it again; disks that rest on it are damaged too",
        )
    check_format(Path(facts.disk), facts.format)
    return known


@dataclass(frozen=True)
class _Expected:
    """What the vendor says the file's digest is, and how far that word is backed."""

    digest: str
    signature: Signature | None


@dataclass(frozen=True)
class _Pull:
    """One pull, under the lock of its folder."""

    entry: CatalogEntry
    folder: Path
    progress: Progress | None
    say: Notice
    require: bool
    keyrings: tuple[Path, ...]
    policy: Policy
    bring: Bring | None = None

    @property
    def part(self) -> Path:
        return self.folder / ".part"

    @property
    def algorithm(self) -> str:
        return self.entry.digest.partition(":")[0] or self.entry.algorithm

    def run(self) -> ImageFacts:
        for stale in self.folder.glob(".unpacked-*"):
            shutil.rmtree(stale)
        unsigned = self.unsigned()
        expected = self.expected()
        target = self.folder / expected.digest[:12]
        if not self.kept(target, expected):
            expected = self.fetch(expected)
            target = self.folder / expected.digest[:12]
            self.keep(target, expected, self.image_signature() or expected.signature, unsigned)
        discard(self.part)
        store.point(self.folder / "current", target.name)
        found = cached(self.entry)
        assert found is not None
        return found

    def unsigned(self) -> str:
        """Why no signature will be checked, empty when one will. Raises ImageError when one is required."""
        entry = self.entry
        reason = checkable(entry.key if entry.signature_url else None, self.keyrings)
        if not reason:
            return ""
        if self.require:
            raise ImageError(
                f"the signature of {entry.name} cannot be checked",
                why=reason,
                fix="install the vendor's key, or do without --require-signature (checksum over https only)",
            )
        if entry.digest:
            backed = "by the digest in the catalogue"
        elif entry.checksum_url.startswith("https://"):
            backed = "by its checksum over https only"
        else:
            backed = "by a checksum over plain http: that finds damage, not an attacker"
        self.say(f"{entry.name} is checked {backed}: {reason}")
        return reason

    def signs(self, what: str) -> bool:
        entry = self.entry
        return bool(entry.signature_url) and entry.signs == what and not checkable(entry.key, self.keyrings)

    def expected(self, *, fresh: bool = False) -> _Expected:
        """The digest from the catalogue or from the vendor's checksum file, its signature checked where that can be done."""
        entry = self.entry
        if entry.digest and not (entry.checksum_url and self.signs("checksums")):
            return _Expected(entry.digest.partition(":")[2], None)
        signature = None
        with client(self.policy) as http:
            document = fetch_bytes(http, entry.checksum_url, self.policy, fresh=fresh)
            text = signed_text(document) if entry.signature_url == "inline" else document.decode(errors="replace")
            if self.signs("checksums") and entry.key:
                if entry.signature_url == "inline":
                    text, signature = verify_inline(document, entry.key, self.keyrings)
                else:
                    proof = fetch_bytes(http, entry.signature_url, self.policy, fresh=fresh)
                    with tempfile.TemporaryDirectory(prefix="tinamou-") as folder:
                        file = Path(folder) / entry.checksum_url.rpartition("/")[2]
                        file.write_bytes(document)
                        signature = verify_detached(file, proof, entry.key, self.keyrings)
        digest = expected_digest(text, entry.style, self.algorithm, entry.file)
        if entry.digest and entry.digest.partition(":")[2] != digest:
            raise ImageError(
                f"the vendor's checksum of {entry.file} is not the one in the catalogue",
                why=f"the vendor says {digest}, the catalogue {entry.digest}",
                fix="the release was replaced: correct the catalogue after looking into it",
            )
        return _Expected(digest, signature)

    def kept(self, target: Path, expected: _Expected) -> bool:
        """Whether exactly this build is here already and is backed as well as it could be now."""
        if not (target / "facts.json").is_file():
            return False
        proof = target / "origin.json"
        known = Origin(**json.loads(proof.read_text()))
        if self.signs("image") and not known.signer:
            shutil.rmtree(target)
            return False
        if expected.signature and not known.signer:
            _write(proof, asdict(replace(known, signer=expected.signature.fingerprint, unsigned="")))
        return True

    def fetch(self, expected: _Expected) -> _Expected:
        """Bring the file here; returns what it was finally compared with. Nothing wrong stays.

        A build that was replaced between checksum file and image is noticed by asking for the checksum again; a partial file
        of an earlier run that turns out to be wrong is thrown away and the whole file downloaded once more.
        """
        entry = self.entry
        if self.bring is not None:
            return self.brought(self.bring, expected)
        while True:
            done = download(entry.url, self.part, format=entry.format, progress=self.progress, policy=self.policy)
            have = file_digest(self.part, self.algorithm)
            if have == expected.digest:
                return expected
            expected = self.expected(fresh=True)
            if have == expected.digest:
                return expected
            discard(self.part)
            if not done.resumed:
                break
            self.say(f"the part of {entry.file} from an earlier run does not fit: downloading it anew")
        raise ImageError(
            f"the {self.algorithm} of {entry.file} is wrong",
            why=f"the vendor's checksum says {expected.digest}, the {done.size} bytes that came have {have}: "
            "the checksum file or the image is stale, or the download was changed on the way",
            fix="nothing was kept; try again later, or name another mirror in your own catalogue file",
        )

    def brought(self, bring: Bring, expected: _Expected) -> _Expected:
        """Have the file from elsewhere: the very one the vendor speaks of. Nothing wrong stays."""
        fix = "leave --from out: it is downloaded then"
        if "." in self.entry.format:
            why = f"{self.entry.file} is packed, and what a host keeps is what was in it: the vendor says nothing of that"
            raise ImageError(f"{self.entry.name} cannot come from another host", why=why, fix=fix)
        discard(self.part)
        try:
            bring(self.part, f"{self.algorithm}:{expected.digest}")
            if (have := file_digest(self.part, self.algorithm)) == expected.digest:
                return expected
        except BaseException:
            discard(self.part)
            raise
        discard(self.part)
        why = f"the vendor's checksum says {expected.digest}, that of what came is {have}"
        raise ImageError(f"what came is another build of {self.entry.name} than the vendor's", why=why, fix=fix)

    def image_signature(self) -> Signature | None:
        entry = self.entry
        if not (self.signs("image") and entry.key):
            return None
        with client(self.policy) as http:
            proof = fetch_bytes(http, entry.signature_url, self.policy)
        try:
            return verify_detached(self.part, proof, entry.key, self.keyrings)
        except ImageError:
            discard(self.part)
            raise

    def keep(self, target: Path, expected: _Expected, signature: Signature | None, unsigned: str) -> None:
        """Unpack, look inside, and make it appear in one rename."""
        entry = self.entry
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=self.folder, ignore_cleanup_errors=True) as folder:
            work = Path(folder)
            format, digest = entry.format, expected.digest
            disk = work / f"disk.{format.partition('.')[0]}"
            if "." in format:
                format = unpack(self.part, format, disk)
                digest = file_digest(disk, self.algorithm)
                size = self.looked(disk, format)
            else:
                size = self.looked(self.part, format)
                self.part.rename(disk)
            facts = described(entry, disk.name, format, size)
            published, content = f"{self.algorithm}:{expected.digest}", f"{self.algorithm}:{digest}"
            signer = signature.fingerprint if signature else ""
            _write(work / "facts.json", asdict(facts))
            _write(work / "origin.json", asdict(Origin(entry.url, published, content, signer, unsigned, time.time())))
            disk.chmod(0o444)
            work.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            work.rename(target)

    def looked(self, disk: Path, format: str) -> Size:
        try:
            return check_format(disk, format)
        except ImageError:
            discard(self.part)
            raise


def _write(path: Path, data: dict[str, object]) -> None:
    replace_text(path, json.dumps(data, indent=1), mode=0o644)

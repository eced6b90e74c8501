"""A report of a running machine's processor, asked for by its guest through the kernel's one interface for all makers.

Source: Linux Documentation/ABI/testing/configfs-tsm-report (inblob, outblob, auxblob, provider, generation); the table of
certificates a SEV-SNP host hands to its guest: AMD 56421 (GHCB), SNP extended guest request.
"""

from __future__ import annotations

import uuid

from tinamou.attest.binary import MalformedError, Reader
from tinamou.errors import GuestError
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.operations.inside import Inside

__all__ = ["Fetched", "certificates_of", "report_of"]

_MOST, _LONGEST_LOG = 1 << 20, 16 << 20
_SCRIPT = r"""
tsm=${1:-/sys/kernel/config}/tsm/report
for module in sev-guest tdx-guest; do [ -d "$tsm" ] || modprobe -q $module 2>/dev/null; done
[ -d "$tsm" ] || mount -t configfs configfs /sys/kernel/config 2>/dev/null
[ -d "$tsm" ] || { echo "its kernel has no $tsm" >&2; exit 9; }
one=$tsm/tinamou-$(cat /proc/sys/kernel/random/uuid)
kept=$(mktemp -d) || exit 9
trap 'rm -rf "$kept"; rmdir "$one" 2>/dev/null' EXIT
mkdir "$one" || exit 9
cat > "$kept/in" || exit 9
for try in 1 2 3 4 5; do
    cat "$kept/in" > "$one/inblob" && before=$(cat "$one/generation") || continue
    cat "$one/outblob" > "$kept/out" || continue
    cat "$one/auxblob" > "$kept/aux" 2>/dev/null || : > "$kept/aux"
    [ "$(cat "$one/generation")" = "$before" ] || continue
    echo "$(cat "$one/provider") $(wc -c < "$kept/out")"
    cat "$kept/out" "$kept/aux"
    exit
done
echo "it gave none in five tries, or others asked in between each time" >&2
exit 9
"""
"""The report of the bytes from its input: a line with who gave it and how long it is, the report, what else there is.

The kernel counts what is written (generation) and refuses to give a report of what was changed since: it is asked anew then.
"""
_LOG = "f=${1:-/sys/firmware/acpi/tables/data}/CCEL; [ -r $f ] && exec cat $f || exit 0"
_NAMES = {
    "63da758d-e664-4564-adc5-f4b93be8accd": "vcek",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "vlek",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ask",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ark",
}


@dataclass(frozen=True)
class Fetched:
    """A report as the guest's kernel gave it, and who did (``provider``: sev_guest, tdx_guest).

    ``certificates``: what the host handed on, by kind (vcek, vlek, ask, ark), in DER; ``log``: the guest's log of events
    (CCEL). Each empty where there is none; nothing of it is believed.
    """

    provider: str
    report: bytes
    certificates: dict[str, bytes]
    log: bytes


async def report_of(name: str, data: bytes, *, progress: Progress = silent, tsm: str = "", acpi: str = "") -> Fetched:
    """A report that has these bytes in it, up to 64. Raises GuestError, StateError.

    ``tsm`` and ``acpi`` are folders of the guest in place of /sys/kernel/config and /sys/firmware/acpi/tables/data.
    """
    fix = "it needs encrypted memory (SEV-SNP, TDX), and Linux 6.7 or later with sev-guest or tdx-guest"
    guest = Inside(name, "the processor's reports", fix, progress)
    said = await guest.run(_SCRIPT, data.ljust(64, b"\0"), _MOST, tsm)
    log = await guest.run(_LOG, b"", _LONGEST_LOG, acpi)
    head, _, rest = said.partition(b"\n")
    provider, _, length = head.decode("ascii", "replace").rpartition(" ")
    if not length.isdecimal() or not 0 < int(length) <= len(rest) or not provider.isidentifier():
        raise GuestError(f"the guest of {name} gives no report", why="it says neither who gave it nor how long it is")
    report, more = rest[: int(length)], rest[int(length) :]
    try:
        return Fetched(provider, report, certificates_of(more) if provider == "sev_guest" else {}, log)
    except MalformedError as error:
        raise GuestError(f"the guest of {name} gives no report", why=str(error)) from None


def certificates_of(table: bytes) -> dict[str, bytes]:
    """The certificates in a host's table, by kind; those of no kind known here are left out. Raises MalformedError."""
    reader, found = Reader(table, "the table of certificates"), dict[str, bytes]()
    while reader.left:
        kind, at, length = reader.take(16, "kind"), reader.number(4, "offset"), reader.number(4, "length")
        if not any(kind):
            break
        if at + length > len(table):
            raise MalformedError(f"its table of certificates has {len(table)} bytes, and points to {at + length}")
        name = _NAMES.get(str(uuid.UUID(bytes_le=kind)))
        if name:
            found[name] = table[at : at + length]
    return found

"""The tiny guest, built from the archive and booted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from guest_agent import answer

from tinamou.errors import ImageError
from tinamou.images.resolve import resolve


@pytest.fixture(autouse=True)
def _no_cache_for_pure_tests(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("vm"):
        monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path))


MACHINES = {
    "x86_64": ["-machine", "q35,hpet=off"],
    "aarch64": ["-machine", "virt", "-cpu", "cortex-a57"],
    "riscv64": ["-machine", "virt"],
}


@pytest.mark.vm
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_the_tiny_guest_answers(arch: str) -> None:
    binary = f"qemu-system-{arch}"
    if not shutil.which(binary):
        pytest.skip(f"{binary} is not installed")
    if not shutil.which("apt-get"):
        pytest.skip("no apt on this host to build the guest from")
    facts = resolve("tiny", arch)
    assert facts.built
    assert facts == resolve("tiny", arch, build=False)
    assert bool(facts.fast_kernel) == (arch == "x86_64"), "Debian's kernel starts by PVH, without its decompressor"
    base = [binary, "-m", "512", "-nodefaults", "-display", "none", "-no-reboot", *MACHINES[arch]]
    direct = ["-kernel", facts.fast_kernel or facts.kernel, "-initrd", facts.initrd, "-append", facts.cmdline]
    assert answer([*base, *direct], ["uname", "-m"]).strip() == arch
    manifest = json.loads((Path(facts.initrd).parent / "manifest.json").read_text())
    assert "busybox-static" in manifest["packages"]


def test_an_unknown_image_names_what_there_is() -> None:
    with pytest.raises(ImageError) as caught:
        resolve("tinny", "x86_64")
    assert "did you mean tiny" in caught.value.fix
    assert "debian:trixie" in caught.value.fix
    assert caught.value.fix.count("did you mean") == 1


def test_a_catalogue_image_is_planned_before_it_is_pulled() -> None:
    from tinamou.images import catalog

    entry = next(entry for entry in catalog.catalog_entries() if entry.arch == "x86_64")
    facts = resolve(entry.name, entry.arch, build=False)
    assert not facts.built
    assert facts.disk.endswith(f"current/disk.{facts.format}")


def test_a_path_is_examined(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        resolve(str(tmp_path / "none.qcow2"), "x86_64")


def test_an_architecture_without_a_tiny_guest_is_refused() -> None:
    with pytest.raises(ImageError, match="not built for"):
        resolve("tiny", "sparc64")

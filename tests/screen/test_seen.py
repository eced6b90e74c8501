"""Real firmware and boot loaders: their screens are read, and what is typed to them arrives."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from running import qemu, run
from test_pure import unpacked
from typed import call, eventually, tinamou

from tinamou import Machine
from tinamou.control import connect_qmp
from tinamou.control.screen import screendump
from tinamou.errors import StateError, TinamouError
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.screen.text import fonts_in, read_text

pytestmark = pytest.mark.vm
PLAIN = {"display": "vnc", "net": [], "memory": "256M", "wait": False}
MINUTES = 240.0


DARK = "Debian 1:10.0.2+ds-2+deb13u1~bpo12+1"
"""Of Debian 12's backports: GRUB's rescue disc draws nothing under it, on any card, by QEMU's own command line either."""


@pytest.fixture
def drawn():
    if (here := probe_qemu(find_binary("x86_64")).package) == DARK:
        pytest.skip(f"GRUB draws nothing under {here}")


def shown(vm, words):
    """Wait until the screen has these words; its text."""
    said = [""]

    def there():
        try:
            said[0] = "\n".join(vm.screen_text())
        except StateError as error:
            said[0] = str(error)
        return words in said[0]

    try:
        eventually(there, words, MINUTES)
    except AssertionError:
        pytest.fail(f"{words!r} is not on the screen:\n{said[0]}")
    return said[0]


def test_grub_is_typed_to_and_read(packaged, drawn):
    with Machine(str(packaged("grub-rescue-pc")), **PLAIN) as vm:
        shown(vm, "GNU GRUB")
        vm.keys("c")
        shown(vm, "grub>")
        vm.type('echo "It\'s <42> ~ {x|y}: 100% #1_@"\n')
        shown(vm, "\nIt's <42> ~ {x|y}: 100% #1_@")
        picture = vm.screenshot()
        assert unpacked(picture.png()) == (picture.width, picture.height, picture.pixels)
        before = vm.record.log_from
        vm.keys("ctrl-alt-del")
        shown(vm, "Use the")
        assert vm.running and vm.record.log_from == before


def test_the_commands(packaged, tmp_path, drawn):
    image = str(packaged("grub-rescue-pc"))
    tinamou("run", "-d", "--no-wait", "--name", "seen", image, "--display", "vnc", "--net", "none", "--memory", "256M")
    try:
        eventually(lambda: "GNU GRUB" in call("screenshot", "seen", "--text").stdout, "the menu", MINUTES)
        tinamou("keys", "seen", "c")
        eventually(lambda: "grub>" in call("screenshot", "seen", "--text").stdout, "the prompt", MINUTES)
        tinamou("type", "seen", "echo -n a-b", "--enter")
        eventually(lambda: "\na-b" in call("screenshot", "seen", "--text").stdout, "the echo", MINUTES)
        file = tmp_path / "out.png"
        told = json.loads(tinamou("screenshot", "seen", str(file), "--json"))
        assert unpacked(file.read_bytes())[:2] == (told["width"], told["height"])
        assert call("screenshot", "seen", "out.jpg").returncode == 110
        assert call("screenshot", "seen", "--nothing").returncode == 110
        refused = call("type", "seen", "ß")
        assert (refused.returncode, "U+00DF" in refused.stderr) == (110, True)
    finally:
        call("rm", "-f", "seen")


def test_a_machine_without_screen_is_told_so():
    with Machine() as vm:
        for act in (vm.screenshot, vm.screen_text, lambda: vm.keys("a"), lambda: vm.type("a")):
            with pytest.raises(TinamouError, match=r"has no (screen|keyboard)"):
                act()


@pytest.mark.slow
@pytest.mark.parametrize(("package", "words"), [("ipxe", "iPXE"), ("memtest86+", "Memtest86+")])
def test_other_images_are_known_by_their_screens(package, words, packaged):
    with Machine(str(packaged(package)), boot={"firmware": "bios"}, **PLAIN) as vm:
        shown(vm, words)


@pytest.mark.slow
def test_the_shell_of_uefi_is_read(state):
    code = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
    if not code.is_file():
        pytest.skip("no OVMF here (script/setup installs it)")
    fonts = list(fonts_in(code.read_bytes()))
    flash = f"if=pflash,format=raw,unit=0,readonly=on,file={code}"
    with qemu(state, "-machine", "q35", "-m", "256", "-device", "VGA", "-drive", flash) as machine:

        async def shell():
            async with await connect_qmp(machine.directory, owner=True, alive=machine.alive) as session:
                until = time.monotonic() + MINUTES
                while time.monotonic() < until:
                    try:
                        text = read_text(await screendump(session), fonts)
                    except StateError:
                        continue
                    if any("Shell>" in line for line in text):
                        return text
                return []

        assert any("UEFI Interactive Shell" in line for line in run(shell()))

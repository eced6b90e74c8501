"""What users of other tools met when they first tried tinamou, and public bug reports tried on it: each has a test.

The table is the list; what had no test of its own is tested here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from typed import call, tinamou

from tinamou import Machine
from tinamou.errors import SpecError
from tinamou.spec import load_spec

TESTS = Path(__file__).parents[1]

MET = {
    "a kernel of one's own loses root= and the initrd": (
        "unit/test_boot_ways.py::test_a_kernel_of_ones_own_takes_the_place_of_the_images_and_of_nothing_else"
    ),
    "run -d cuts the power of a guest that takes long": (
        "lifecycle/test_together.py::test_a_guest_that_takes_long_is_left_running"
    ),
    "a warm run's output is cut at 16 MiB, 20 MB of input fail": (
        "e2e/test_terminal.py::test_a_warm_copy_carries_streams_of_any_size"
    ),
    "exec's streams": "e2e/test_terminal.py::test_streams_of_any_size",
    "cp is slow": "guest/test_copy_port.py::test_a_real_guest_by_a_port",
    "gzipped user-data is a traceback": "parts/test_user_data.py::test_packed_user_data_is_unpacked",
    "user-data that cloud-init would skip": "parts/test_user_data.py::test_what_it_would_skip_is_refused",
    "a machine file in Latin-1 is a traceback": "cli/test_met_by_users.py::test_a_machine_file_that_is_not_utf8_is_one_line",
    "image resize of vdi, vmdk, vhdx": "images/test_empty.py::test_a_format_without_another_size_says_so",
    "sizes like 10X and 9E": "images/test_empty.py::test_sizes_of_other_verbs",
    "image create makes what was not asked for": (
        "images/test_empty.py::test_what_cannot_be_made_is_refused_and_leaves_nothing"
    ),
    "a name's format is not the file's": "images/test_empty.py::test_a_name_says_its_format_and_sizes_are_whole_sectors",
    "raw disks whose last sector is partial": (
        "unit/test_permits.py::test_a_file_that_ends_within_a_sector_is_not_read_through_the_ring"
    ),
    "such a file is known": "images/test_importing.py::test_a_file_that_ends_within_a_sector_is_known",
    "forwards of IPv6, ranges; the same port twice": "parts/test_forwards.py::test_a_port_of_the_host_leads_to_one_place",
    "ls and show say no address, no size, an age in words": "state/test_ls_and_show.py",
    "ssh right after a start is reset": "guest/test_ssh.py::test_the_server_is_waited_for",
    "the warning of emulation at every command": "e2e/test_run.py::test_landing_on_emulation_is_said_once",
    "a package that is none is named last": "images/test_unknown_packages.py",
    "an image in use is advised to be made room for": "images/test_other_keys.py::test_one_in_use_is_not_put_aside",
    "run --share is not there": "forks/test_share.py::test_a_command_in_a_warm_machine_with_a_share",
    "shares by every door": "doors/test_doors.py::test_hardware",
    "a traceback after Ctrl-C": "cli/test_cut_short.py::test_a_command_that_is_still_being_loaded_ends_in_one_line",
    "nothing can be changed afterwards": "e2e/test_changed.py",
    "a shell ends silently": "e2e/test_terminal.py::test_a_shell",
    "units of schedules outlive rm": "lifecycle/test_together.py::test_schedules_go_with_their_machine",
    "no autostart": "lifecycle/test_autostart.py::test_a_real_systemd_starts_and_ends_them_in_order",
    "Unused Tokens": "cli/test_meant.py::test_a_command_without_dashes_is_answered_with_the_line",
    "verbs of other tools are matched by letters": "cli/test_meant.py::test_an_unknown_verb_is_answered_by_meaning",
    "a disk added to a stopped machine is not listed": (
        "lifecycle/test_together.py::test_a_disk_of_a_machine_that_is_off_is_known_at_once"
    ),
    "exec has no environment": "guest/test_resident.py::test_a_command_has_the_environment_of_a_login",
    "devices of qemu_args collide": "unit/test_parts.py",
    "limits of an ordinary user": "unit/test_group.py::test_a_user_asks_their_systemd",
    "image import takes a running machine's disk": "images/test_importing.py::test_a_disk_somebody_writes_to_is_not_taken",
    "an imported disk's agent is unknown": "images/test_importing.py::test_an_imported_guest_is_like_another",
    "a name is refused by a regular expression": "cli/test_met_by_users.py::test_a_name_is_refused_in_words",
    "files that are not there are planned": "unit/test_named.py::test_what_is_not_there_is_told_by_its_field",
    "an ejectable drive is not listed": "snapshots/test_guest_disks.py::test_a_disc_is_changed_while_the_guest_runs",
    "A: cp changes what was there": "guest/test_archive.py::test_a_folder_that_was_there_keeps_its_mode_and_what_it_holds",
    "A: cp replaces links": "guest/test_archive.py::test_what_is_there_never_becomes_another_kind_of_thing",
    "B: holes are carried and stored": "cli/test_met_by_users.py::test_holes_stay_holes",
    "C: one of several is read, silently": "convert/test_accounting.py",
    "C: limits of one direction": "convert/test_silent_losses.py::test_limits_of_one_direction_are_told",
    "C: ranges with one excluded": "convert/test_faults.py::test_forwarded_ranges",
    "C, D: cables and drives that are not plugged in": "convert/test_faults.py::test_guests_without_a_network",
    "D: writes that are thrown away": "convert/test_faults.py::test_writes_that_were_thrown_away",
    "E: quickemu's bridges": "convert/test_quickemu_ports.py",
    "H: what is asked of QEMU waits without limit": "hostile/test_bounds.py",
    "I: the clock after a pause": "e2e/test_clock.py",
    "J: exec while a machine boots": "e2e/test_terminal.py::test_a_machine_that_is_being_started_is_waited_for",
}
"""What was met, and the test, or file of tests, that fails where it is met again."""


@pytest.mark.parametrize("met", MET)
def test_each_has_a_test(met: str) -> None:
    file, _, name = MET[met].partition("::")
    tree = ast.parse((TESTS / file).read_text())
    named = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in named if name else any(one.startswith("test_") for one in named), MET[met]


def test_a_machine_file_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_bytes(b"# caf\xe9\n")
    for verb in ("plan", "run"):
        done = call(verb, str(tmp_path / "m.toml"))
        assert (done.returncode, "Traceback" in done.stderr) == (110, False)
        assert f"{tmp_path}/m.toml is not TOML" in done.stderr.splitlines()[0]


def test_a_name_is_refused_in_words() -> None:
    with pytest.raises(SpecError) as error:
        load_spec({"name": "c_1"})
    assert "lower-case letters, digits and dashes" in str(error.value) and "[a-z" not in str(error.value)


@pytest.mark.vm
def test_holes_stay_holes(tmp_path: Path) -> None:
    """A file alone and one in a folder, in and out."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "alone", tmp_path / "folder" / "within"):
        with path.open("wb") as file:
            file.truncate(24 << 20)
            file.write(b"x")
    with Machine(name="holes", keep=True, net="none", memory="256M"):
        try:
            tinamou("cp", str(tmp_path / "alone"), str(tmp_path / "folder"), "holes:/root/")
            said = tinamou("exec", "holes", "--", "du", "-k", "/root/alone", "/root/folder/within").split()
            assert [int(said[0]) < 256, int(said[2]) < 256] == [True, True], said
            tinamou("cp", "holes:/root/alone", "holes:/root/folder", f"{tmp_path}/")
        finally:
            call("rm", "-f", "holes")
    for path in (tmp_path / "alone", tmp_path / "folder" / "within"):
        assert (path.stat().st_size, path.stat().st_blocks * 512 < 256 << 10) == (24 << 20, True)
        assert path.read_bytes()[:1] == b"x"

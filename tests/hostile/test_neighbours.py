"""Another user of the host gets nothing by files, folders and locks it made before us, and no machine reaches another."""

import contextlib
import ctypes
import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.machine.reconcile import reconcile
from tinamou.state import ledger, machines, networks, pools, shared, uids
from tinamou.system import confine
from tinamou.system.lock import exclusive
from tinamou.system.spawn import alive, end, spawn

pytestmark = pytest.mark.root

OTHER = 1_899_999_999
"""A user id nobody has."""
CLEAN = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def run(tmp_path_factory, monkeypatch):
    """The folder of what a reboot removes, shared by the state directories of a test."""
    folder = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("TINAMOU_RUN", str(folder))
    return folder


@pytest.fixture
def victim(tmp_path):
    """A process of ours, that nobody may end."""
    process = spawn(["sleep", "600"], log=str(tmp_path / "log"), environment=CLEAN)
    yield process
    end(process)


def as_other(work, uid=OTHER):
    """What ``work`` returns, or its errno, done in a child process of another user."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            said = work()
        except OSError as error:
            said = errno.errorcode[error.errno]
        except BaseException as error:
            said = repr(error)
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = json.load(file)
    os.waitpid(pid, 0)
    return said


@contextlib.contextmanager
def held_by_other(path):
    """A process of another user that holds a lock on the file or folder, if it can; whether it does."""
    lock = "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    code = f"import fcntl, os, sys; {lock}; print(1, flush=True); input()"
    words = [sys.executable, "-I", "-c", code, str(path)]
    process = subprocess.Popen(
        words, user=OTHER, group=OTHER, extra_groups=[], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process.stdout.readline() == "1\n"
    finally:
        process.kill()
        process.communicate()


def planted(folder, victim, uid=OTHER):
    """A machine's folder of another user, that says our process is its QEMU, to be ended."""
    folder.mkdir(parents=True)
    record = {
        "name": folder.name, "spec": {}, "ephemeral": True, "pid": victim.pid, "started": victim.started, "owner_pid": 1,
    }  # fmt: skip
    (folder / "machine.json").write_text(json.dumps(record))
    for path in (folder, folder / "machine.json"):
        os.chown(path, uid, uid)
    return folder


def ledger_naming(folder):
    return json.dumps(
        {"boot": shared.boot(), "cpus": {str(folder): "0"}, "pools": {}, "values": {}, "reports": [], "devices": {}}
    )


def test_a_planted_ledger_is_not_acted_on(run, tmp_path, victim):
    folder = planted(tmp_path / "machines" / "evil", victim, uid=0)
    (run / "tinamou.json").write_text(ledger_naming(folder))
    os.chown(run / "tinamou.json", OTHER, OTHER)
    said = reconcile()
    assert alive(victim) and folder.exists()
    assert [line for line in said if f"belongs to user {OTHER}" in line and "tinamou.json" in line]
    with ledger.edit() as held:
        held.cpus["/x/machines/mine"] = "1"
    assert ledger.look().cpus == {"/x/machines/mine": "1"} and not ledger.fault()
    assert (run / "tinamou.json").stat().st_uid == 0


@pytest.mark.parametrize("how", ["folder", "record", "above", "link"])
def test_a_planted_folder_the_ledger_names_is_left_alone(run, tmp_path, victim, how):
    above = tmp_path / "state"
    folder = planted(above / "machines" / "evil", victim, uid=OTHER if how in ("folder", "link") else 0)
    if how == "record":
        os.chown(folder / "machine.json", OTHER, OTHER)
    if how == "above":
        above.chmod(0o777)
    if how == "link":
        named = tmp_path / "machines" / "evil"
        named.parent.mkdir()
        named.symlink_to(folder)
    shared_by = run / "tinamou.json"
    shared_by.write_text(ledger_naming(tmp_path / "machines" / "evil" if how == "link" else folder))
    shared_by.chmod(0o600)
    said = reconcile()
    assert alive(victim) and (folder / "machine.json").exists()
    assert len([line for line in said if "evil" in line or "can be written to" in line]) == 1, said


def test_the_ledger_of_a_user_is_never_below_tmp(tmp_path):
    """Whoever was first to make the folder in /tmp decided what other users' commands ended and removed."""
    home = tmp_path / "home"
    home.mkdir()
    for path in (*tmp_path.parents, tmp_path):
        if path.parent != path and path.stat().st_mode & 0o007 != 0o007:
            path.chmod(path.stat().st_mode | 0o011)
    os.chown(home, OTHER, OTHER)

    def where():
        for name in ("TINAMOU_RUN", "XDG_RUNTIME_DIR", "TINAMOU_STATE"):
            os.environ.pop(name, None)
        os.environ["HOME"] = str(home)
        with ledger.edit() as held:
            held.cpus["/x/machines/mine"] = "1"
        return [str(ledger.path()), ledger.path().parent.stat().st_mode & 0o777, ledger.path().stat().st_mode & 0o777]

    assert as_other(where) == [str(home / ".local/state/tinamou/run/tinamou.json"), 0o700, 0o600]


def test_a_ledger_of_an_earlier_boot_is_empty(run):
    with ledger.edit() as held:
        held.cpus["/x/machines/mine"] = "1"
    data = json.loads(ledger.path().read_text())
    ledger.path().write_text(json.dumps({**data, "boot": "another"}))
    assert ledger.look().cpus == {} and not ledger.fault()


def test_a_run_folder_others_can_write_to_is_refused(run):
    run.chmod(0o777)
    with pytest.raises(StateError, match="TINAMOU_RUN") as error, ledger.edit():
        pass
    assert "can be written to by others" in str(error.value.why)
    assert not list(run.iterdir())


ODD = ("file", "link", "folder")


def test_odd_entries_end_no_command(state, tmp_path, victim):
    """A file, a link and a folder of another user, in each of the folders tinamou lists."""
    evil = planted(tmp_path / "evil", victim)
    for kind in ("machines", "checkpoints", "pools", "networks"):
        parent = state / kind
        parent.mkdir(exist_ok=True)
        (parent / "file").write_text("x")
        (parent / "link").symlink_to(evil)
        planted(parent / "folder", victim)
    before = sorted(str(path) for path in state.rglob("*"))
    for words in (["ls"], ["checkpoints", "ls"], ["pool", "ls"], ["net", "ls"], ["host"], ["stats"]):
        done = subprocess.run([sys.executable, "-m", "tinamou", *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "Traceback" not in done.stderr, (words, done.stderr)
        if words == ["ls"]:
            lines = done.stderr.splitlines()
            for kind in ("machines", "checkpoints", "pools", "networks"):
                for name in ODD:
                    assert len([line for line in lines if f"{state}/{kind}/{name} " in line]) == 1, (kind, name, lines)
    assert alive(victim) and [path for path in before if not os.path.lexists(path)] == []
    assert machines.machines() == [] and networks.names() == [] and pools.every() == []


def test_a_lock_another_user_holds_keeps_nobody_waiting(run):
    run.chmod(0o755)
    with held_by_other(run):  # anybody may lock a folder that can be opened
        started = subprocess.run(
            [sys.executable, "-c", "from tinamou.state import ledger\nwith ledger.edit() as held: held.reports.append('x')"],
            timeout=60,
        )
    assert started.returncode == 0 and ledger.look().reports == ["x"]
    with held_by_other(run / "tinamou.lock") as could:
        assert not could


def test_a_lock_file_that_was_open_to_all_is_closed_and_a_wait_ends(tmp_path, capfd):
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o011)
    lock = tmp_path / ".lock"
    lock.touch(mode=0o644)
    with held_by_other(lock) as could:
        assert could
        with pytest.raises(StateError) as error, exclusive(lock, seconds=1.5):
            pass
        assert "process " in str(error.value.why) and "python" in str(error.value.why)
        assert "waiting for process " in capfd.readouterr().err
    with exclusive(lock), held_by_other(lock) as could:
        assert not could
    assert lock.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["networks.lock", "machines/a/machine.lock", "checkpoints/.warm.lock"])
def test_every_lock_is_ours_alone(state, name):
    (state / name).parent.mkdir(parents=True, exist_ok=True)
    with exclusive(state / name), held_by_other(state / name) as could:
        assert not could


def made(state, name):
    folder = state / "machines" / name
    folder.mkdir(parents=True, mode=0o711)
    return folder


@pytest.fixture
def two(run, tmp_path_factory, monkeypatch):
    """Two state directories on one host: ``leased(place, name)`` makes a machine's folder in one and lends it an id."""
    places = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]
    with shared.held():  # other machines of this host begin at the first one, and each test here at its own
        shared.write("uids.json", {"uids": {}, "last": uids.FIRST + 1000 + os.getpid() % 60000})

    def leased(place, *names):
        monkeypatch.setenv("TINAMOU_STATE", str(places[place]))
        return machines.lease_uids([made(places[place], name) for name in names])

    leased.places = places
    return leased


def test_machines_of_two_state_directories_cannot_reach_each_other(two, tmp_path):
    (mine,), (others,) = two(0, "a"), two(1, "a")
    assert mine != others
    log = str(tmp_path / "log")
    processes = [spawn([*confine.prefix(uid), "sleep", "600"], log=log, environment=CLEAN) for uid in (mine, others)]
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and Path(f"/proc/{processes[1].pid}/cmdline").read_bytes()[:9] != b"sleep\0600":
            time.sleep(0.02)

        def attack():
            libc, tried = ctypes.CDLL(None, use_errno=True), []
            with contextlib.suppress(PermissionError):
                os.kill(processes[1].pid, 0)
                tried.append("kill")
            if libc.ptrace(16, processes[1].pid, None, None) == 0:
                tried.append("ptrace")
            with contextlib.suppress(OSError):
                os.close(os.open(f"/proc/{processes[1].pid}/mem", os.O_RDWR))
                tried.append("mem")
            with contextlib.suppress(OSError):
                Path(f"/proc/{processes[1].pid}/environ").read_bytes()
                tried.append("environ")
            return tried

        assert as_other(attack, uid=mine) == []
        assert as_other(attack, uid=others) != [], "the attack itself works"
    finally:
        for process in processes:
            end(process)


def test_several_at_once_and_never_soon_again(two):
    first = two(0, "a", "b", "c")
    assert len(set(first)) == 3
    for name in "abc":
        machines.remove(two.places[0] / "machines" / name)
    assert not set(two(1, "d", "e")) & set(first)


def test_numbers_begin_anew_at_the_end_and_skip_what_is_held(two):
    (kept,) = two(0, "kept")
    with shared.held():
        shared.write("uids.json", {"uids": {str(kept): str(two.places[0] / "machines/kept")}, "last": uids.FIRST + 65534})
    leased = two(1, "x", "y", "z")
    assert leased[0] == uids.FIRST + 65535 and kept not in leased and all(uid < kept + 100 for uid in leased[1:])


@pytest.mark.parametrize("what", ["process", "helper", "file", "deep", "shm"])
def test_not_lent_again_while_anything_of_it_is_left(two, what, tmp_path, monkeypatch):
    (uid,) = two(0, "a")
    machines.remove(two.places[0] / "machines/a")
    with shared.held():
        shared.write("uids.json", {"uids": {}, "last": uid - 1 if uid > uids.FIRST else uids.FIRST + 65535})
    shared_folder = Path("/tmp" if what != "shm" else "/dev/shm") / f"tm-left-{os.getpid()}"
    process = None
    try:
        if what in ("process", "helper"):
            words = [*confine.prefix(uid + (65536 if what == "helper" else 0)), "sleep", "600"]
            process = spawn(words, log=str(tmp_path / "log"), environment=CLEAN)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and Path(f"/proc/{process.pid}").stat().st_uid == 0:
                time.sleep(0.02)
        else:
            shared_folder.mkdir(mode=0o700)
            left = shared_folder / "left" if what == "deep" else shared_folder
            if what == "deep":
                shared_folder.chmod(0o777)
                left.touch()
            os.chown(left, uid, uid)
        assert two(1, "b") != [uid]
    finally:
        if process:
            end(process)
        for path in (shared_folder / "left", shared_folder):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
    with shared.held():
        shared.write("uids.json", {"uids": {}, "last": uid - 1 if uid > uids.FIRST else uids.FIRST + 65535})
    assert two(1, "c") == [uid]


def reboot():
    (shared.run_dir() / "uids.json").unlink()


def test_after_a_reboot_an_id_lent_on_is_replaced_and_files_follow(two, tmp_path, monkeypatch):
    (old,) = two(0, "a")
    folder = two.places[0] / "machines/a"
    tpm = folder / "tpm"
    tpm.mkdir()
    ours = {folder / "disk0.qcow2": 0, tpm: 2 * 65536, tpm / "tpm2-00.permall": 2 * 65536}
    (folder / "disk0.qcow2").touch()
    (tpm / "tpm2-00.permall").touch()
    victims = [tmp_path / "victim", tmp_path / "linked"]
    for path in victims:
        path.touch()
    (tpm / "link").symlink_to(victims[0])
    os.link(victims[1], tpm / "hard")
    for path, shift in {**ours, victims[0]: 0, victims[1]: 0}.items():
        os.chown(path, old + shift, old + shift)
    (folder / "machine.json").touch(mode=0o600)

    reboot()
    with shared.held():
        shared.write("uids.json", {"uids": {}, "last": old - 1 if old > uids.FIRST else uids.FIRST + 65535})
    assert two(1, "b") == [old]
    monkeypatch.setenv("TINAMOU_STATE", str(two.places[0]))
    new = machines.uid_again(folder, old)
    assert new not in (None, old) and uids.of(folder) == new
    for path, shift in ours.items():
        assert (path.stat().st_uid, path.stat().st_gid) == (new + shift, new + shift), path
    assert [path.stat().st_uid for path in victims] == [old, old] and (folder / "machine.json").stat().st_uid == 0
    assert machines.uid_again(folder, new) == new
    assert (folder / "uid").stat().st_mode & 0o777 == 0o600


def test_after_a_reboot_an_id_nobody_has_is_kept(two):
    (old,) = two(0, "a")
    reboot()
    assert machines.uid_again(two.places[0] / "machines/a", old) == old
    assert two(1, "b") != [old]


@pytest.mark.vm
def test_the_folder_of_a_machine_and_its_processes_tell_nothing(state):
    """Every file of a machine is its owner's alone, and what runs for it stands in no folder of the caller."""
    tinamou = [sys.executable, "-m", "tinamou"]
    subprocess.run([*tinamou, "run", "-d", "--name", "shut", "--net", "type=user"], check=True, timeout=300, cwd=state)
    try:
        folder = state / "machines" / "shut"
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        assert len(files) > 4 and [path for path in files if path.stat().st_mode & 0o077] == []
        mine = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in _read(path)]
        assert mine and {str((process / "cwd").readlink()) for process in mine} == {"/"}
    finally:
        subprocess.run([*tinamou, "rm", "-f", "shut"], check=True, timeout=240)


def _read(path):
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""

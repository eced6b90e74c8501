"""Every machine has a control group: what it may hold, who makes it, and what is said where nobody does."""

import dataclasses

import pytest
from host_trees import Tree
from made_facts import DEBIAN, TINY, facts

from tinamou.blueprint import MakeCgroup
from tinamou.errors import PlanError
from tinamou.facts.host import Grouping
from tinamou.planner import plan
from tinamou.probe import grouping
from tinamou.spec import load_spec
from tinamou.system.rooted import Rooted
from tinamou.units import Size

MIB = 1 << 20


def planned(spec, image=TINY, **host):
    seen = facts(image)
    return plan(load_spec(spec), dataclasses.replace(seen, host=dataclasses.replace(seen.host, **host)))


def group(spec, image=TINY, **host):
    (found,) = [step for step in planned(spec, image, **host).steps if isinstance(step, MakeCgroup)]
    return found


def test_what_is_limited_stays_and_the_rest_is_bounded():
    one = group({"limits": {"cpu": 1.5, "memory": "4G", "pids": 300}})
    assert (one.name, one.cpu, one.memory, one.read, one.pids) == ("web", 150, Size.parse("4G"), None, 300)
    bare = group({})
    assert (bare.cpu, bare.read, bare.write) == (None, None, None)
    assert "guest RAM 512, QEMU 356" in bare.why.reason
    assert bare.memory > (512 + 356 + 256) * MIB
    assert bare.pids == 64 + 1 + 5 * 192 + 5 * 16


def test_it_grows_with_the_machine():
    small, ram = group({}), group({"memory": "2G"})
    assert ram.memory - small.memory >= 1536 * MIB
    cpus, io = group({"cpu": 9}), group({"disk": [{"size": "1G", "iothread": True}]}, DEBIAN)
    assert cpus.pids == small.pids + 8
    assert io.pids == small.pids + 192
    assert io.memory >= small.memory + 64 * MIB
    assert group({"tpm": True}).pids == small.pids + 16


def test_never_more_than_the_group_of_this_process():
    assert group({}, memory_limit=Size.parse("600M"), memory_available=Size.parse("16G")).memory == 600 * MIB


def test_files_of_qemu():
    few, many = planned({}).confinement.files, planned({"cpu": 64}).confinement.files
    assert 1024 < few < many


def test_without_a_group_it_starts_and_says_so():
    made = planned({}, grouping=Grouping(fault="no way"))
    assert not any(isinstance(step, MakeCgroup) for step in made.steps)
    (note,) = [note for note in made.notes if note.level == "remark"]
    assert note.why.reason == "no way"


@pytest.mark.parametrize(
    ("limits", "has", "path"),
    [
        ({"cpu": 1}, Grouping(fault="no way"), "limits.cpu"),
        ({"read": "1M"}, Grouping("systemd", frozenset(("memory", "pids")), ""), "limits.read"),
        ({"pids": 16}, Grouping("kernel", frozenset(("memory", "pids")), ""), "limits.pids"),
    ],
)
def test_a_limit_that_cannot_be_held_is_refused(limits, has, path):
    with pytest.raises(PlanError) as error:
        planned({"limits": limits}, grouping=has)
    assert [problem.path for problem in error.value.problems] == [path]


def v2(tree, controllers="cpu io memory pids", **files):
    tree.write("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0").write("/proc/self/cgroup", "0::/")
    tree.write("/sys/fs/cgroup/cgroup.controllers", controllers)
    for name, text in files.items():
        tree.write(f"/sys/fs/cgroup/cgroup.{name}", text)


def seen(tmp_path, uid=0, busctl=True):
    return grouping.probe(Rooted(str(tmp_path)), uid, busctl)


def test_root_asks_the_kernel(tmp_path):
    v2(Tree(tmp_path))
    assert seen(tmp_path) == Grouping("kernel", frozenset(("cpu", "io", "memory", "pids")), "")


def test_version_1(tmp_path):
    mounts = [f"cgroup /sys/fs/cgroup/{name} cgroup rw,{name} 0 0" for name in ("memory", "blkio", "pids")]
    Tree(tmp_path).write("/proc/self/mounts", "\n".join(mounts)).write("/proc/self/cgroup", "3:memory:/a")
    assert seen(tmp_path) == Grouping("kernel", frozenset(("io", "memory", "pids")), "")


def test_no_controller(tmp_path):
    v2(Tree(tmp_path), "cpu io")
    assert "has the controller memory, pids" in seen(tmp_path).fault


def test_a_container_with_processes_in_its_root(tmp_path):
    v2(Tree(tmp_path), type="domain", procs="1\n7", subtree_control="")
    assert seen(tmp_path).by == ""
    assert "processes in it" in seen(tmp_path).fault
    v2(Tree(tmp_path), type="domain", procs="1\n7", subtree_control="memory pids")
    assert seen(tmp_path).by == "kernel"


def test_a_user_asks_their_systemd(tmp_path):
    tree = Tree(tmp_path)
    v2(tree)
    assert "nor is there a systemd of the user" in seen(tmp_path, 1000).fault
    tree.write("/run/user/1000/bus", "")
    folder = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"
    tree.write(f"{folder}/cgroup.controllers", "memory")
    assert "was the user's systemd given pids" in seen(tmp_path, 1000).fault
    tree.write(f"{folder}/cgroup.controllers", "cpu memory pids")
    assert seen(tmp_path, 1000) == Grouping("systemd", frozenset(("cpu", "memory", "pids")), "")
    assert "busctl" in seen(tmp_path, 1000, busctl=False).fault


def test_a_remark_is_for_who_asks_why(capsys):
    from tinamou.cli import output

    notes = planned({}, grouping=Grouping(fault="no way")).notes
    output.notes(notes)
    assert "control group" not in capsys.readouterr().err
    output.notes(notes, why=True)
    assert "no control group of its own (host: no way)" in capsys.readouterr().err

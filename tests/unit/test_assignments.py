"""What is written about single fields of a description, and which fields differ between two."""

from __future__ import annotations

import pytest

from tinamou.errors import SpecError
from tinamou.machine.assignments import assign, put, with_lists
from tinamou.machine.changing import changes_between
from tinamou.spec import dump_spec, load_spec


def after(spec: dict, *assignments: str, **settings: object) -> dict:
    before = load_spec(spec)
    data = with_lists(before, dump_spec(before))
    assign(data, assignments)
    put(data, settings)
    return dump_spec(load_spec(data))


@pytest.mark.parametrize(
    ("spec", "written", "expected"),
    [
        ({}, "memory=1G", {"memory": {"size": "1G"}}),
        ({"memory": {"merge": True}}, "memory=1G", {"memory": {"size": "1G", "merge": True}}),
        ({}, "cpus=4", {"cpu": {"count": 4}}),
        ({"cpus": 4}, "cpu.count=", {}),
        ({}, "forkable=true", {"memory": {"forkable": True}}),
        ({}, "net[0].forward+=tcp:8080:80", {"net": [{"forward": ["tcp:8080:80"]}]}),
        ({"net": [{"forward": ["1:1", "2:2"]}]}, "net[0].forward-=1:1", {"net": [{"forward": ["2:2"]}]}),
        ({}, 'net[0].forward+=["1:1", "2:2"]', {"net": [{"forward": ["1:1", "2:2"]}]}),
        ({}, "net+=type=user,model=e1000", {"net": [{}, {"type": "user", "model": "e1000"}]}),
        ({}, "net+=none", {"net": [{}, {"type": "none"}]}),
        ({"net": ["user", "passt"]}, "net[0]=", {"net": [{"type": "none"}, {"type": "passt"}]}),
        ({"net": ["user"]}, "net[0]=type=passt,mtu=1400", {"net": [{"type": "passt", "mtu": 1400}]}),
        ({}, "disk+=size=10G", {"disk": [{"size": "10G"}]}),
        ({"disk": [{"size": "1G"}, {"size": "2G"}]}, "disk[0]=", {"disk": [{"size": "2G"}]}),
        ({}, "disk[0].size=2G", None),
        ({"disk": [{"size": "1G"}]}, "disk[0].size=2G", {"disk": [{"size": "2G"}]}),
        ({"seed": {"user": "ada"}}, "seed.user=", {}),
        ({}, "qemu_args+=-snapshot", {"qemu_args": ["-snapshot"]}),
        ({}, "boot.cmdline=a=b c", {"boot": {"cmdline": "a=b c"}}),
        (
            {},
            "net+=type=user,forward=1:1,forward=2:2,forward=3:3",
            {"net": [{}, {"type": "user", "forward": ["1:1", "2:2", "3:3"]}]},
        ),
        ({"net": [{"forward": ["1:1", "2:2"]}]}, "net[0].forward[1]=3:3", {"net": [{"forward": ["1:1", "3:3"]}]}),
        ({"share": ["/a"]}, "share[0].to=/b", {"share": [{"path": "/a", "to": "/b"}]}),
        ({"qemu_args": ["-a"]}, "qemu_args+=b=c", {"qemu_args": ["-a", "b=c"]}),
    ],
)
def test_written(spec: dict, written: str, expected: dict | None) -> None:
    if expected is None:
        with pytest.raises(SpecError):
            after(spec, written)
        return
    assert after(spec, written) == expected


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("memory", "not of the form"),
        ("=1", "not of the form"),
        ("net[x].mtu=1", "not of the form"),
        ("net[3].mtu=1", r"there is no net\[3\]: it has 1"),
        ("net.mtu=1", "stands behind a list"),
        ("net[0].forward-=1:1", "1:1 is not in it: it has nothing"),
        ("net[0]-=user", "is one element"),
        ("name.floor=1", "already given"),
        ("memory[0]=1", "there is no memory|it is no list"),
        ("net[3].mtu=1", "elements are counted from 0; \\+= adds one"),
        ("net[0]-=user", r"net\[0\]= takes it out, net\+= adds one"),
        ("net.mtu=1", r"number its element, as in net\[0\]\.model"),
        ("name.floor=1", "name is already given as 'web'.*give it as a table"),
        ("net[0].forward-=1:1", r"write it as it stands there, or forward\[0\]="),
    ],
)
def test_not_understood(written: str, said: str) -> None:
    with pytest.raises(SpecError, match=f"(?s){said}"):
        after({"name": "web"}, written)


def test_every_one_that_cannot_be_is_told() -> None:
    with pytest.raises(SpecError) as error:
        after({}, "memory", "net[3].mtu=1", "cpus=2")
    assert len(error.value.problems) == 2


def test_settings_of_a_program() -> None:
    wanted = after({"memory": {"merge": True}}, memory="1G", cpus=2, boot={"cmdline": "quiet"})
    assert wanted == {"memory": {"size": "1G", "merge": True}, "cpu": {"count": 2}, "boot": {"cmdline": "quiet"}}
    assert after({"memory": {"merge": True}}, memory={"size": "1G"})["memory"] == {"size": "1G", "merge": True}


def test_which_fields_differ() -> None:
    old = load_spec({"memory": "1G", "net": ["user", "none"], "disk": [{"size": "1G"}], "cpu": {"count": 1, "max": 4}})
    new = load_spec(
        {
            **{
                "memory": "2G",
                "net": [{"type": "user", "forward": ["1:1"]}, "passt"],
                "disk": [{"size": "1G"}, {"size": "2G"}],
            },
            "cpu": {"count": 1, "max": 4, "plugged": 2},
        }
    )
    assert sorted(changes_between(old, new)) == [
        ("cpu.count", 1, 3),
        ("disk[1]", None, {"size": "2G"}),
        ("memory.size", "1G", "2G"),
        ("net[0].forward", [], ["1:1"]),
        ("net[1]", None, {"type": "passt"}),
    ]
    assert changes_between(new, new) == []

"""Descriptions of machines: read from plain data, refused with every problem at once, written back, and their schema."""

import tomllib

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinamou.errors import SpecError
from tinamou.spec import MachineSpec, dump_spec, load_spec, shorthand, spec_schema
from tinamou.units import Size

FILE = """
name = "web"
image = "debian"
memory = "2G"
cpus = 4
firmware = "uefi"

[cpu]
sockets = 2

[[disk]]
size = "10G"
[[disk]]
path = "/data.qcow2"
readonly = true

[[net]]
model = "e1000"
forward = ["8080:80"]
"""


def test_a_file_becomes_a_spec():
    spec = load_spec(tomllib.loads(FILE))
    assert spec.memory.size == Size.parse("2G")
    assert (spec.cpu.count, spec.cpu.sockets) == (4, 2)
    assert spec.boot.firmware == "uefi"
    assert spec.disk[0].size == Size.parse("10G")
    assert spec.disk[1].readonly
    assert spec.net[0].model == "e1000"


def test_what_is_written_back_reads_the_same():
    spec = load_spec(tomllib.loads(FILE))
    assert load_spec(dump_spec(spec)) == spec
    assert dump_spec(MachineSpec()) == {}


def test_short_forms():
    assert load_spec({"disk": "/a.qcow2"}).disk[0].path == "/a.qcow2"
    assert load_spec({"boot": "direct", "kernel": "/vmlinuz"}).boot.kernel == "/vmlinuz"
    assert load_spec({"net": []}).net == ()
    assert load_spec({"net": ["user", "user"]}).net[1].type == "user"


def problems(data):
    with pytest.raises(SpecError) as error:
        load_spec(data)
    return {problem.path: problem for problem in error.value.problems}


def test_all_problems_at_once():
    found = problems(
        {
            "nmae": "x",
            "name": "Not A Name",
            "cpus": 0,
            "memory": "lots",
            "accel": "kwm",
            "disk": [{"path": "/a", "size": "1G"}, {"readonly": "perhaps", "path": "/b"}],
            "net": [{"forward": ["http"], "mac": "01:00:00:00:00:00"}],
        }
    )
    assert found["nmae"].fix == "did you mean name?"
    assert found["accel"].fix == "did you mean kvm?"
    assert set(found) >= {"name", "cpu.count", "memory.size", "disk[0].path", "disk[1].readonly", "net[0].mac"}
    assert all(problem.reason for problem in found.values())


@pytest.mark.parametrize(
    ("cpu", "path"),
    [
        ({"count": 4, "sockets": 3}, "cpu.count"),
        ({"count": 4, "sockets": 2, "cores": 2, "threads": 2}, "cpu.count"),
        ({"count": 4, "sockets": 1, "cores": 2, "threads": 1}, "cpu.count"),
        ({"count": True}, "cpu.count"),
        ({"count": 2, "sockets": -1}, "cpu.sockets"),
    ],
)
def test_impossible_topology(cpu, path):
    assert path in problems({"cpu": cpu})


def test_a_short_name_beside_its_long_form():
    assert "cpus" in problems({"cpus": 2, "cpu": {"count": 4}})
    assert "nics" in problems({"nics": [], "net": []})


def test_settings_that_contradict_each_other():
    assert "boot.kernel" in problems({"boot": {"kernel": "/k", "firmware": "bios"}})
    assert "boot.secure" in problems({"boot": {"kernel": "/k", "firmware": "uefi", "secure": True}})
    assert "boot.initrd" in problems({"boot": {"initrd": "/i"}})
    assert "disk[0].aio" in problems({"disk": [{"path": "/a", "aio": "native"}]})


@given(st.integers(1, 64), st.integers(0, 8), st.integers(0, 8), st.integers(0, 4))
def test_a_topology_multiplies_to_the_count_or_is_refused(count, sockets, cores, threads):
    try:
        spec = load_spec({"cpu": {"count": count, "sockets": sockets, "cores": cores, "threads": threads}})
    except SpecError:
        return
    a, b, c = spec.cpu.topology()
    assert a * b * c == count
    assert all(not given or given == made for given, made in zip((sockets, cores, threads), (a, b, c), strict=True))


def test_the_schema_accepts_what_is_read_and_refuses_the_rest():
    schema = spec_schema()
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert not list(validator.iter_errors(tomllib.loads(FILE)))
    assert not list(validator.iter_errors({"memory": {"size": "1G"}, "disk": "/a.qcow2"}))
    assert list(validator.iter_errors({"nmae": "x"}))
    assert list(validator.iter_errors({"accel": "kwm"}))
    assert list(validator.iter_errors({"cpus": 0}))


@pytest.mark.parametrize(
    "machine",
    [
        {"memory": {"size": "256M", "floor": "512M"}},
        {"memory": {"floor": "128M", "forkable": True}},
        {"memory": {"floor": "128M", "hugepages": "2M"}},
        {"memory": {"floor": "128M"}, "devices": {"balloon": False}},
        {"memory": {"floor": "128M"}, "pci": ["0000:65:00.0"]},
        {"memory": {"floor": "128M"}, "confidential": {"type": "sev"}},
        {"memory": {"floor": "1M"}},
    ],
)
def test_a_floor_that_no_balloon_can_keep_is_refused(machine):
    assert "memory.floor" in problems(machine)


def test_a_floor_may_be_as_high_as_the_memory():
    assert load_spec({"memory": {"size": "256M", "floor": "256M"}}).memory.floor == Size.parse("256M")
    assert load_spec({"devices": {"balloon": False}}).memory.floor is None


def test_a_bare_value_stands_for_a_field_in_every_table_that_has_one():
    tables = ("cpu", "memory", "boot", "display", "tpm", "confidential")
    assert [shorthand(table) for table in (*tables, "seed", "nosuch")] == [
        *("count", "size", "firmware", "type", "enabled", "type"),
        *("", ""),
    ]


def test_a_policy_of_memory_that_is_not_encrypted():
    assert "confidential.debug" in problems({"confidential": {"debug": True}})
    assert load_spec({"confidential": {"type": "auto", "debug": True}}).confidential.debug

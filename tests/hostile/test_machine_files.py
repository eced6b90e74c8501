"""What lies in a machine's folder is read where it is the user's own and of the kinds it should be."""

import json
import os

import pytest
from test_neighbours import OTHER

from tinamou.errors import StateError
from tinamou.snapshots import history
from tinamou.state import record as records
from tinamou.state.folder import image_of, plan_data


def machine_here(folder, **record):
    folder.mkdir(parents=True)
    (folder / "machine.json").write_text(json.dumps({"name": folder.name, "spec": {}, **record}))
    (folder / "machine.json").chmod(0o600)
    return folder


@pytest.mark.root
@pytest.mark.parametrize("name", ["plan.json", "image.json", "snapshots.json"])
def test_what_another_user_wrote_of_a_machine_is_not_read(tmp_path, name):
    folder = machine_here(tmp_path / "machines" / "web")
    (folder / name).write_text("{}")
    os.chown(folder / name, OTHER, OTHER)
    machine = records.read(folder)
    read = {"plan.json": plan_data, "image.json": image_of, "snapshots.json": lambda one: history.load(one.path)}[name]
    with pytest.raises(StateError) as error:
        read(machine)
    assert f"belongs to user {OTHER}" in error.value.why


@pytest.mark.parametrize(
    "odd",
    [
        {"pid": "1"}, {"pid": True}, {"pid": 1.5}, {"spec": []}, {"name": 3}, {"uid": "0"}, {"pinning": [1]},
        {"pinning": "0-3"}, {"timings": {"a": "b"}}, {"ephemeral": 1}, {"created": None}, {"ssh_port": "22"},
    ],
)  # fmt: skip
def test_a_record_of_odd_types_is_damaged(tmp_path, odd):
    folder = machine_here(tmp_path / "machines" / "web", **odd)
    with pytest.raises(StateError, match="is damaged"):
        records.read(folder)

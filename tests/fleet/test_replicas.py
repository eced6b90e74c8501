"""Replicas on another host: what was written since goes over, what is damaged is refused, one becomes the machine."""

from __future__ import annotations

import json

import pytest
from two_hosts import Two
from typed import call, tinamou

from tinamou.fleet import replicas
from tinamou.snapshots.schedule import Schedule, schedules, units

pytestmark = pytest.mark.vm
WRITE = "dd if=/dev/urandom of=/dev/vda bs=1M count={count} seek={seek} conv=fsync 2>/dev/null; md5sum /dev/vda"


def test_a_replica_is_brought_up_to_date_and_becomes_the_machine(two: Two) -> None:
    tinamou("run", "-d", "--name", "web", "--memory", "160M", "--net", "none", "--set", 'disk=[{size="64M"}]')
    tinamou("exec", "web", "--", "sh", "-c", WRITE.format(count=16, seek=0))
    first = json.loads(tinamou("replicate", "web", "there", "--json"))
    assert first["whole"]
    assert first["size"] > 16 << 20
    summed = tinamou("exec", "web", "--", "sh", "-c", WRITE.format(count=2, seek=40))
    second = json.loads(tinamou("replicate", "web", "there", "--json"))
    assert not second["whole"]
    assert 2 << 20 < second["size"] < 4 << 20
    here = two.here()
    assert here is not None
    assert list((here.path.parent.parent / "replicas").rglob("*.qcow2")) == []
    tinamou("exec", "web", "--", "sh", "-c", WRITE.format(count=1, seek=60))
    (kept,) = json.loads(two.say("replica", "ls", "--json"))
    assert kept["name"] == "web"
    tinamou("kill", "web")
    taken = call("replica", "take", "web", **two.places)
    assert taken.stdout == "web\n"
    assert "is lost" in taken.stderr
    two.say("start", "web")
    assert two.say("exec", "web", "--", "md5sum", "/dev/vda") == summed
    two.say("replica", "rm", "web")
    assert json.loads(two.say("replica", "ls", "--json")) == []
    third = json.loads(tinamou("replicate", "web", "there", "--json"))
    assert third["whole"]


@pytest.mark.slow
def test_a_replica_that_was_damaged_is_refused(two: Two) -> None:
    tinamou("run", "-d", "--name", "web", "--memory", "160M", "--net", "none", "--set", 'disk=[{size="64M"}]')
    tinamou("replicate", "web", "there")
    (disk,) = two.there.glob("replicas/from/*/web/*/disk0*.qcow2")
    with disk.open("r+b") as file:
        file.seek(disk.stat().st_size - 5)
        file.write(b"wrong")
    assert "is not what was written" in call("replica", "take", "web", **two.places).stderr
    assert two.away() is None
    tinamou("replicate", "web", "there", "--full")
    two.say("replica", "take", "web")


def test_its_timer(tmp_path) -> None:
    made = units(Schedule("web", "5m", 0, to="h2"), ["/usr/bin/tinamou"], {})
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    assert set(made) == {"tinamou-web-replica.service", "tinamou-web-replica.timer"}
    assert "replicate web h2" in made["tinamou-web-replica.service"].replace('"', "")
    assert "OnCalendar=*:0/5" in made["tinamou-web-replica.timer"]
    assert schedules(tmp_path, "web") == [Schedule("web", "5m", 0, to="h2")]


def test_pieces_leave_holes_out(tmp_path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(100 << 20)
        file.write(b"x" * 5000)
        file.truncate(200 << 20)
    pieces = list(replicas._pieces(path))
    assert sum(len(piece) for _, piece in pieces) < 1 << 20
    copy = bytearray(path.stat().st_size)
    for offset, piece in pieces:
        copy[offset : offset + len(piece)] = piece
    assert bytes(copy) == path.read_bytes()

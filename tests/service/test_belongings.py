"""What belongs to whom, and what a request is told that is none of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_here import client_of_all, machine
from starlette.testclient import TestClient

from tinamou.state import tokens


@pytest.fixture
def client(state: Path) -> Iterator[TestClient]:
    with client_of_all() as client:
        yield client


def test_an_origin_that_is_none_is_another(client, state):
    machine(state, "web")
    assert client.post("/v1/machines/web/stop", json={}, headers={"origin": "http://["}).status_code == 403


def test_why_tokens_are_not_read_is_told_to_the_log_alone(client, state, caplog):
    (state / "tokens.json").write_text("{")
    for _ in range(2):
        answer = client.get("/v1/me")
        assert (answer.status_code, answer.json()["status"]) == (503, 503)
        assert str(state) not in answer.text
    assert [str(state) in one.getMessage() for one in caplog.records if one.name == "tinamou.service.door"] == [True]


def test_what_is_not_there_is_not_removed_by_force(client, state):
    machine(state, "webs")
    answer = client.delete("/v1/machines/web?force=true")
    assert answer.status_code == 404 and "webs" not in answer.text
    (state / "machines/webs/machine.json").write_text("{")
    assert client.delete("/v1/machines/webs?wait=30").status_code == 409
    assert client.delete("/v1/machines/webs?force=true&wait=30").json()["state"] == "done"


def test_a_token_of_the_same_name_made_anew_owns_nothing_of_the_old_one(client, state):
    machine(state, "ci-1")

    def made() -> dict[str, str]:
        secret = tokens.create("again", verbs=["stop"], machines=["ci-*"])
        return {"authorization": f"Bearer {secret}", "idempotency-key": "k"}

    old = made()
    begun = client.post("/v1/machines/ci-1/stop?wait=20", json={}, headers=old).json()
    path = f"/v1/operations/{begun['id']}"
    assert (begun["caller"], "owner" in begun) == ("token:again", False)
    assert client.get(path, headers=old).status_code == 200
    tokens.revoke("again")
    new = made()
    assert client.get(path, headers=new).status_code == 404
    assert client.get("/v1/operations", headers=new).json()["operations"] == []
    assert client.post("/v1/machines/ci-1/stop?wait=20", json={}, headers=new).json()["id"] != begun["id"]

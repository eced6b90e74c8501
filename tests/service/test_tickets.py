"""Tickets with which a page opens sockets: one socket, one caller, one browser, and soon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_here import client_of_all, machine
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tinamou.service import tickets
from tinamou.service.auth import Caller, NotAllowedError
from tinamou.service.tickets import Tickets

ONE, OTHER = Caller("token:one", identity="token:one:1"), Caller("token:one", identity="token:one:2")
PATH = "/v1/machines/web/console"


@pytest.fixture
def client(state: Path) -> Iterator[TestClient]:
    machine(state, "web")
    with client_of_all() as client:
        yield client


def closed(client: TestClient, path: str, **headers: str) -> tuple[int, str]:
    """How a socket was closed; one that is let in is told that the machine does not run."""
    with (
        pytest.raises(WebSocketDisconnect) as seen,
        client.websocket_connect(f"ws://localhost{path}", headers=headers) as one,
    ):
        while True:
            one.receive_text()
    return seen.value.code - 4000, str(seen.value.reason)


@pytest.mark.parametrize("kind", ["console", "exec", "screen"])
def test_a_page_needs_a_ticket_and_a_program_none(client, kind):
    path, page = f"/v1/machines/web/{kind}", {"origin": "http://localhost"}
    if kind != "exec":  # which waits for a command first
        assert closed(client, path)[0] == 409
    assert closed(client, path, **page) == (403, "token:all has no ticket for this socket")
    assert closed(client, f"{path}?ticket=made-up", **page)[0] == 403
    told = client.post(f"{path}/ticket", headers=page).json()
    if kind != "exec":
        assert closed(client, f"{path}?ticket={told['ticket']}", **page)[0] == 409
        assert closed(client, f"{path}?ticket={told['ticket']}", **page)[0] == 403  # it was used
    assert client.post("/v1/machines/nobody/console/ticket").status_code == 404


def test_a_ticket_is_for_one_browser_and_one_socket(client):
    page = {"origin": "http://localhost"}
    for used, browser in (("/v1/machines/web/screen", "a"), (PATH, "b")):
        given = client.post(f"{PATH}/ticket", headers={**page, "cookie": "tinamou-form=a"}).json()["ticket"]
        assert closed(client, f"{used}?ticket={given}", **page, cookie=f"tinamou-form={browser}")[0] == 403


def test_whose_a_ticket_is_and_how_long(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(tickets.time, "monotonic", lambda: clock[0])
    every = Tickets()
    every.take(every.give(ONE, "b", PATH), ONE, "b", PATH)
    with pytest.raises(NotAllowedError, match="no ticket"):
        every.take(every.give(ONE, "b", PATH), OTHER, "b", PATH)
    late = every.give(ONE, "b", PATH)
    clock[0] += tickets.GOOD_SECONDS
    with pytest.raises(NotAllowedError):
        every.take(late, ONE, "b", PATH)


def test_tickets_that_wait_are_bounded():
    every = Tickets()
    first, others = every.give(ONE, "b", PATH), every.give(OTHER, "b", PATH)
    given = [every.give(ONE, "b", PATH) for _ in range(300)]
    with pytest.raises(NotAllowedError):
        every.take(first, ONE, "b", PATH)
    every.take(others, OTHER, "b", PATH)
    every.take(given[-1], ONE, "b", PATH)

"""What the server of E2B's protocol refuses, how, and its pure parts; no machine is started."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys

import httpx2
import pytest
from e2b_serving import Serving
from starlette.requests import Request

from tinamou import late
from tinamou.errors import SpecError
from tinamou.service.agents.e2b.app import UNSUPPORTED
from tinamou.service.agents.e2b.entries import Entry
from tinamou.service.agents.e2b.keys import caller_of, need_of_owner
from tinamou.service.agents.e2b.problems import RefusedError
from tinamou.service.agents.e2b.rpc import message_of
from tinamou.service.agents.e2b.sandboxes import Sandboxes
from tinamou.service.agents.e2b.templates import Template, load
from tinamou.service.agents.e2b.watching import changes
from tinamou.service.agents.listing import Found
from tinamou.service.auth import NotAllowedError
from tinamou.state import tokens


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("state"))
        patch.setenv("TINAMOU_STATE", folder)
        patch.setenv("TINAMOU_RUN", folder)
        server = Serving(patch)
        server.keys = {"all": server.key("all"), "reader": server.key("reader", ("ls", "show"))}
        yield server
        server.end()


def ask(served, method, path, key="all", **more):
    return httpx2.request(method, f"{served.url}{path}", headers={"X-API-KEY": served.keys.get(key, key)}, **more)


@pytest.mark.parametrize("key", ["", "e2b_00", "tnm_00", "nonsense"])
def test_unknown_keys_are_refused(served, key):
    answer = ask(served, "GET", "/v2/sandboxes", key)
    assert answer.status_code == 401 and "tinamou token create" in answer.json()["message"]


def test_a_token_does_what_it_is_for(served):
    assert ask(served, "GET", "/v2/sandboxes", "reader").json() == []
    answer = ask(served, "POST", "/v2/sandboxes", "reader", json={})
    assert answer.status_code == 403 and "may not create" in answer.json()["message"]


def test_bodies_are_bounded_and_rights_come_first(served):
    large = b'{"metadata": {"a": "' + b"x" * (2 << 20) + b'"}}'
    assert ask(served, "POST", "/v2/sandboxes", content=large).status_code == 413
    assert ask(served, "POST", "/v2/sandboxes", "reader", content=large).status_code == 403
    assert ask(served, "POST", "/v2/sandboxes", content=b"{").status_code == 400


@pytest.mark.parametrize("path", UNSUPPORTED)
def test_what_is_not_served_says_so_by_name(served, path):
    answer = ask(served, "POST", path.replace("{id}", "sb0").replace("{rest:path}", "x/y"))
    assert answer.status_code == 501 and answer.json()["code"] == 501
    assert path in answer.json()["message"] and UNSUPPORTED[path] in answer.json()["message"]
    assert answer.headers["should-retry"] == "false"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"mcp": {"x": {}}}, 501, "mcp"),
        ({"iam": {"tokens": {}}}, 501, "iam"),
        ({"volumeMounts": [{}]}, 501, "volumes"),
        ({"network": {"allowOut": []}}, 501, "network"),
        ({"autoPauseMemory": False}, 501, "autoPauseMemory"),
        ({"autoResume": {"enabled": True}}, 501, "autoResume"),
        ({"templateID": "none"}, 404, "there are base"),
        ({"timeout": -1}, 400, "timeout"),
        ({"timeout": "long"}, 400, "timeout"),
        ({"timeout": 1e9}, 400, "timeout"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"envVars": ["x"]}, 400, "envVars"),
        ({"metadata": {"a": "x" * 70_000}}, 400, "letters"),
        ([], 400, "object"),
    ],
)
def test_what_no_sandbox_can_be_is_refused(served, body, status, says):
    answer = ask(served, "POST", "/v2/sandboxes", json=body)
    assert answer.status_code == status and says in answer.json()["message"], answer.text
    assert answer.json()["code"] == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sandboxes/sb0"),
        ("DELETE", "/sandboxes/sb0"),
        ("POST", "/sandboxes/sb0/timeout"),
        ("POST", "/sandboxes/sb0/pause"),
        ("POST", "/sandboxes/sb0/fork"),
        ("POST", "/v2/sandboxes/..%2F..%2Fx/connect"),
        ("DELETE", "/templates/none"),
        ("GET", "/no/such/thing"),
    ],
)
def test_what_is_not_there_is_not_found(served, method, path):
    answer = ask(served, method, path, **({"json": {}} if method == "POST" else {}))
    assert answer.status_code == 404 and answer.json()["code"] == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "nextToken=%25", "nextToken=eHk", "startedAfter=never"])
def test_lists_of_what_is_no_page(served, query):
    assert ask(served, "GET", f"/v2/sandboxes?{query}").status_code == 400


def test_a_sandbox_that_is_not_there_answers_as_e2bs_edge(served):
    headers = {"E2b-Sandbox-Id": "sb0"}
    for path in ("/health", "/files?path=/x"):
        answer = httpx2.get(f"{served.url}{path}", headers=headers)
        assert answer.status_code == 502 and answer.json() == {
            "sandboxId": "sb0",
            "message": "The sandbox was not found",
            "code": 502,
        }
    assert httpx2.get(f"{served.url}/health", headers={"Host": "49983-sb1.example.org"}).json()["sandboxId"] == "sb1"
    other = httpx2.get(f"{served.url}/", headers={**headers, "E2b-Sandbox-Port": "8080"}, params={})
    assert other.status_code == 404
    port = httpx2.get(f"{served.url}/health", headers={**headers, "E2b-Sandbox-Port": "8080"})
    assert port.status_code == 501 and "port 8080" in port.json()["message"]
    assert httpx2.get(f"{served.url}/files?path=/x&signature=v1_x").status_code == 401
    frame = struct.pack(">BI", 0, 2) + b"{}"
    for method in ("process.Process/Start", "filesystem.Filesystem/Stat", "process.Process/None"):
        answer = httpx2.post(f"{served.url}/{method}", headers=headers, content=frame)
        assert answer.status_code in (501, 502)
        assert json.loads(answer.text)["message"]


def test_inside_a_sandbox_its_maker_is_asked():
    """What a sandbox's own token opens is what its maker may do now, who is nobody made later by that name."""

    def made(**rights):
        owner = caller_of(tokens.create("reader", **rights)).name
        return Entry("sb7", "sb7", owner, "base", "secret", 0.0, 1e12, ready=True)

    def allowed(entry, verb):
        try:
            need_of_owner(entry, verb)
        except (RefusedError, NotAllowedError):
            return False
        return True

    first = made(verbs=("ls", "show"))
    assert [verb for verb in ("exec", "cp", "ls", "show", "rm") if allowed(first, verb)] == ["ls", "show"]
    tokens.revoke("reader")
    assert not allowed(first, "ls")
    assert not allowed(made(verbs=("exec",), machines=("other-*",)), "exec")
    tokens.revoke("reader")
    last = made(verbs=("exec", "ls"), machines=("sb*",))
    assert allowed(last, "exec") and not allowed(last, "cp")
    assert not allowed(first, "ls")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--e2b", "0.0.0.0:3000"], "for everybody to read"),
        (["--e2b", "nowhere"], "--e2b"),
        (["--e2b", "127.0.0.1:3000", "--e2b-most", "0"], "--e2b-most"),
        (["--e2b-domain", "x.example.org"], "--e2b"),
        (["--e2b-most", "5"], "--e2b"),
        (["--tls-cert", "/etc/hostname"], "--listen"),
        (["--e2b", "127.0.0.1:3000", "--tls-key", "/etc/hostname"], "--listen"),
        (["--e2b", "127.0.0.1:3000", "--e2b-domain", "x.example.org"], "--tls-cert"),
        (["--e2b", "127.0.0.1:3000", "--e2b-templates", "/nowhere"], "cannot be read"),
    ],
)
def test_it_is_not_served_where_keys_could_be_read(words, says):
    done = subprocess.run([sys.executable, "-m", "tinamou", "serve", *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 110 and says in done.stderr


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no message"),
        (b"\0\0\0\0\5{}", "cut short"),
        (b"\1\0\0\0\2{}", "compressed"),
        (b"\0\xff\xff\xff\xff", "larger than 64 MiB"),
        (b"\0\0\0\0\2[]", "no JSON object"),
        (b"\0\0\0\0\1{", "no JSON"),
        (b"\2\0\0\0\2{}", "no message"),
    ],
)
def test_messages_that_are_none(body, says):
    async def read():
        sent = [{"type": "http.request", "body": body[at : at + 1], "more_body": True} for at in range(len(body))]
        pieces = iter([*sent, {"type": "http.request", "body": b"", "more_body": False}])

        async def receive():
            return next(pieces)

        await message_of(Request({"type": "http", "method": "POST", "headers": []}, receive))

    with pytest.raises(RefusedError, match=says):
        asyncio.run(read())


def test_units_serve_it_too(tmp_path):
    words = [
        "--e2b",
        "127.0.0.1:3000",
        "--e2b-templates",
        str(tmp_path / "t.toml"),
        "--e2b-most",
        "7",
        "--units",
        str(tmp_path),
    ]
    subprocess.run([sys.executable, "-m", "tinamou", "serve", *words], check=True, capture_output=True, timeout=240)
    [line] = [one for one in (tmp_path / "tinamou.service").read_text().splitlines() if one.startswith("ExecStart=")]
    assert all(word in line for word in ("--e2b 127.0.0.1:3000", f"--e2b-templates {tmp_path}/t.toml", "--e2b-most 7"))


def test_there_are_so_many_sandboxes_at_most(monkeypatch):
    monkeypatch.setattr(Sandboxes, "state", lambda *_: "running")

    async def full():
        async with Sandboxes({}, most=2) as sandboxes:
            entry = Entry("sb1", "sb1", "token:x", "base", "s", 0.0, 1e12, ready=True)
            sandboxes.entries.put(entry)
            for wanted in (sandboxes.fork(entry, ["sb2", "sb3"], 1), sandboxes.fork(entry, ["sb2"] * 9, 1)):
                with pytest.raises(RefusedError, match="2 may be") as refused:
                    await wanted
                assert refused.value.status == 429
            sandboxes.entries.put(late.replace(entry, id="sb2"))
            with pytest.raises(RefusedError, match="2 may be"):
                await sandboxes.create(late.replace(entry, id="sb3"), Template("base", image="tiny"), network=True)

    asyncio.run(full())


def test_templates_of_a_file(tmp_path):
    path = tmp_path / "templates.toml"
    path.write_text(
        '[big]\nimage = "debian"\nuser = "debian"\n[big.machine]\ncpus = 2\nnet = ["user"]\n[web]\npool = "web"\n'
    )
    found = load(path)
    assert set(found) == {"base", "big", "web"} and found["base"].image == "tiny"
    assert found["big"].spec().cpu.count == 2 and len(found["big"].spec().net) == 1
    assert found["big"].spec(network=False).net == () and found["base"].spec().net == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "not a table"),
        ("[x]", "0 sources"),
        ('[x]\nimage = "tiny"\npool = "p"', "2 sources"),
        ("[x]\nimage = 1", "not a text"),
        ('[x]\npool = "p"\n[x.machine]\ncpus = 2', "are what they are"),
        ('[x]\nimage = "tiny"\nsize = 1', "no such field"),
        ('[x]\nimage = "tiny"\n[x.machine]\ncpus = "many"', "cpu"),
        ("[", "not TOML"),
    ],
)
def test_templates_that_are_none(tmp_path, text, says):
    path = tmp_path / "templates.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as refused:
        load(path)
    assert says in str(refused.value)


def found(inode, *, size=1, mode=0o100644, modified=1):
    return Found("", mode, size, "root", "root", modified, modified, inode)


@pytest.mark.parametrize(
    ("before", "now", "events"),
    [
        ({}, {"a": found(1)}, ["a CREATE", "a WRITE"]),
        ({}, {"a": found(1, mode=0o40755)}, ["a CREATE"]),
        ({"a": found(1)}, {}, ["a REMOVE"]),
        ({"a": found(1)}, {"b": found(1)}, ["a RENAME", "b CREATE"]),
        ({"a": found(1)}, {"a": found(1, size=2)}, ["a WRITE"]),
        ({"a": found(1)}, {"a": found(1, modified=2)}, ["a WRITE"]),
        ({"a": found(1)}, {"a": found(1, mode=0o100600)}, ["a CHMOD"]),
        ({"a": found(1, mode=0o40755)}, {"a": found(1, mode=0o40755, size=80, modified=9)}, []),
        ({"a": found(1)}, {"a": found(1)}, []),
    ],
)
def test_what_happened_between_two_looks(before, now, events):
    assert [f"{one['name']} {one['type'].removeprefix('EVENT_TYPE_')}" for one in changes(before, now)] == events

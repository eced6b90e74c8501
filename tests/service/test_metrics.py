"""Numbers as they are scraped: whose names they have, how many there can be; the board and the alerts that rest on them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser_here import of_npm
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from service_here import PATIENCE, operation, serving

from tinamou.late import replace
from tinamou.monitor.observation import DiskObservation, GuestMemory
from tinamou.service import findings as findings_of
from tinamou.service.auth import Caller
from tinamou.service.families import MOST_FINDINGS, Sample, of_libvirt, of_machines
from tinamou.service.findings import Findings
from tinamou.service.lookout import Seen
from tinamou.service.metrics import Metrics, _Families
from tinamou.state import tokens
from tinamou.state.record import Record
from tinamou.units import Size

DATA = Path(__file__).parents[2] / "data"
RULES, BOARD = DATA / "prometheus/tinamou.rules.yml", DATA / "grafana/tinamou.json"
ALL, SOME = Caller("token:all"), Caller("token:ci", frozenset({"stats"}), ("ci-*",))


def sample(name: str) -> Sample:
    spec = {"cpu": {"count": 2}, "memory": {"size": "1G"}}
    record = Record(
        name=name, directory="/nowhere", spec=spec, image="tiny", arch="x86_64", created=1.0, timings={"plan": 0.1}
    )
    disk = DiskObservation("disk0", 1, 2, 3, 4, files=("/nowhere/disk0.qcow2",))
    card = {"nic": "net0", "received": 5, "sent": 6}
    memory = GuestMemory(Size(1 << 30), Size(9 << 20), available=Size(4 << 20))
    return Sample(record, 7.5, 8, (disk,), (card, {**card, "received": None}), memory, pss=7)


def text_of(families: Any) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families([*families]))
    return generate_latest(registry).decode()


def numbers(wrong: list[dict[str, Any]]) -> Metrics:
    async def seen() -> Seen:
        return Seen(0.0, [{"name": "ci-1", "state": "stopped"}], ())

    return Metrics(SimpleNamespace(seen=seen), SimpleNamespace(lately=lambda: wrong, seen={}))  # type: ignore[arg-type]


def test_libvirts_names_are_those_of_its_exporter():
    found = text_of(of_libvirt([sample("web")]))
    disk = '{domain="web",source_file="/nowhere/disk0.qcow2",target_device="disk0"}'
    assert f"libvirt_domain_block_stats_read_bytes_total{disk} 1.0" in found
    assert 'libvirt_domain_block_stats_write_requests_total{domain="web",' in found
    assert 'libvirt_domain_info_cpu_time_seconds_total{domain="web"} 7.5' in found
    assert 'libvirt_domain_info_maximum_memory_bytes{domain="web"} 1.073741824e+09' in found
    assert (
        'libvirt_domain_interface_stats_receive_bytes_total{domain="web",source_bridge="",target_device="net0"} 5.0' in found
    )
    assert [*text_string_to_metric_families(found)]


def test_what_a_guest_says_of_its_memory_is_told_where_it_says_so():
    found = text_of(of_machines([sample("web"), replace(sample("mute"), memory=None, pss=None)]))
    told = re.findall(r'^tinamou_vm_(\w+){machine="(\w+)"} (\S+)$', found, re.MULTILINE)
    ours = {name: (machine, float(value)) for name, machine, value in told if name.startswith(("guest", "balloon", "pss"))}
    each = {"balloon_bytes": 9 << 20, "guest_available_bytes": 4 << 20, "guest_used_bytes": 5 << 20, "pss_bytes": 7}
    assert ours == {name: ("web", value) for name, value in each.items()}


def test_whose_names_are_asked_for():
    async def asked(names: Any) -> str:
        return (await numbers([]).text(ALL, names)).decode()

    ours, theirs, both = [asyncio.run(asked(names)) for names in ("tinamou", "libvirt", "both")]
    assert "tinamou_machines" in ours and "libvirt_up" not in ours
    assert "tinamou_" not in theirs and "libvirt_up 1.0" in theirs
    assert "tinamou_machines" in both and "libvirt_up" in both


def test_findings_are_told_to_whom_they_concern_and_are_bounded():
    wrong = [{"machine": name, "check": "guest_oom", "severity": "bad"} for name in ("web", "ci-1", None)]
    every, some = [asyncio.run(numbers(wrong).text(caller)).decode() for caller in (ALL, SOME)]
    for name in ("web", "ci-1", ""):
        assert f'tinamou_finding{{check="guest_oom",machine="{name}",severity="bad"}} 1.0' in every.replace(
            f'machine="{name}",check="guest_oom"', f'check="guest_oom",machine="{name}"'
        )
    assert re.findall(r'tinamou_finding{.*?machine="([^"]*)"', some) == ["ci-1"]
    many = [{"machine": f"m{number}", "check": "guest_oom", "severity": "bad"} for number in range(3 * MOST_FINDINGS)]
    assert asyncio.run(numbers(many).text(ALL)).count(b"tinamou_finding{") == MOST_FINDINGS


def test_a_scrape_waits_for_no_look_at_guests(monkeypatch):
    async def go() -> None:
        looks, goes_on = [], asyncio.Event()

        async def look(_: Any) -> Any:
            looks.append(1)
            await goes_on.wait()
            return SimpleNamespace(seen={}, wrong=lambda: [("web", SimpleNamespace(to_json=lambda: {"severity": "bad"}))])

        monkeypatch.setattr(findings_of.Watch, "look", look)
        every = Findings()
        assert every.lately() == every.lately() == []
        await asyncio.sleep(0)
        goes_on.set()
        while not every.lately():  # noqa: ASYNC110 (what it waits for has no event)
            await asyncio.sleep(0)
        assert every.lately()[0]["machine"] == "web" and looks == [1]
        await every.ended()

    asyncio.run(go())


def expressions() -> list[str]:
    board = json.loads(BOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [one.replace("$machine", ".*") for one in found]


def test_the_board_is_of_metrics_that_are_told(state):
    async def asked() -> str:
        one = numbers([])
        one.ended({"verb": "start", "state": "done", "started": 1.0, "ended": 2.0})
        return (await one.text(ALL)).decode()

    told = set(re.findall(r"^(\w+)", asyncio.run(asked()) + text_of(of_machines([sample("web")])), re.MULTILINE)) | {
        "tinamou_finding"
    }
    used = set(re.findall(r"\btinamou_\w+", " ".join([*expressions(), RULES.read_text()]))) - {"tinamou_finding"}
    assert used <= told, used - told
    board = json.loads(BOARD.read_text())
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= board.keys()
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert {"id", "type", "title", "gridPos", "targets", "fieldConfig", "datasource"} <= panel.keys()
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool: not in PATH (apt-get install prometheus): the alerts and the board are not checked")
    return found


def test_the_alerts_are_promethean(promtool, tmp_path):
    assert subprocess.run([promtool, "check", "rules", str(RULES)], timeout=60).returncode == 0
    cases = (Path(__file__).parent / "alerts.test.yml").read_text().replace("RULES", str(RULES))
    (tmp_path / "cases.yml").write_text(cases)
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "cases.yml")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "cases.yml").write_text(cases.replace("eval_time: 75s", "eval_time: 15s"))
    assert subprocess.run([promtool, "test", "rules", str(tmp_path / "cases.yml")], capture_output=True).returncode != 0


def test_the_board_asks_what_prometheus_understands(promtool, tmp_path):
    rules = [{"record": f"board:{number}", "expr": one} for number, one in enumerate(expressions())]
    (tmp_path / "board.yml").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(tmp_path / "board.yml")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_board_is_as_grafana_says_boards_are(tmp_path):
    """By the types that Grafana makes of its own schema: a field that it does not know, or of another kind, is an error."""
    node = shutil.which("node")
    of_npm(tmp_path, "@grafana/schema@12.3.0", tmp_path / "node_modules/@grafana/schema")
    of_npm(tmp_path, "typescript@5.9.3", tmp_path / "typescript")

    def faults(board: str) -> str:
        (tmp_path / "board.ts").write_text(
            f'import {{ Dashboard }} from "@grafana/schema";\nexport const board: Dashboard = {board};\n'
        )
        words = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "board.ts"]
        done = subprocess.run(
            [node, tmp_path / "typescript/lib/tsc.js", *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert bool(done.returncode) == bool(done.stdout), done.stderr
        return done.stdout

    board = BOARD.read_text()
    assert faults(board) == ""
    for sound, wrong in (('"graphTooltip": 1', '"graphTooltip": 7'), ('"gridPos"', '"gridPlace"'), ('"uid"', '"uuid"')):
        assert "error TS" in faults(board.replace(sound, wrong, 1)), wrong


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.timeout(900)
def test_prometheus_scrapes_it_and_an_alert_fires(state, tmp_path):
    """Over TLS with a token that may see numbers alone, while a guest is driven out of memory."""
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("prometheus: not in PATH (apt-get install prometheus): nothing has scraped the service")
    cert, key, own, at = tmp_path / "cert.pem", tmp_path / "key.pem", free_port(), free_port()
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert, *names],
        check=True,
    )
    (tmp_path / "token").write_text(tokens.create("prometheus", verbs=["stats"]))
    scrape = {
        "job_name": "tinamou", "scheme": "https", "metrics_path": "/metrics", "params": {"names": ["both"]},
        "tls_config": {"ca_file": str(cert)}, "authorization": {"credentials_file": str(tmp_path / "token")},
        "static_configs": [{"targets": [f"localhost:{at}"]}],
    }  # fmt: skip
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [scrape],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    words = [
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/tsdb",
        f"--web.listen-address=127.0.0.1:{own}",
    ]
    with serving(state, "--listen", f"127.0.0.1:{at}", "--tls-cert", str(cert), "--tls-key", str(key)) as served:
        with (tmp_path / "prometheus.log").open("wb") as log:
            scraper = subprocess.Popen([prometheus, *words], stdout=log, stderr=log)
        try:
            made = operation(
                served, served.ask("POST", "/v1/machines", {"spec": {"name": "web", "memory": {"size": "256M"}}})
            )
            assert made["state"] == "done", made
            _until(own, "query?query=libvirt_domain_info_virtual_cpus", lambda found: found["result"])
            [value] = _until(own, "query?query=tinamou_vm_memory_bytes", lambda found: found["result"])
            assert value["metric"]["machine"] == "web" and float(value["value"][1]) == 256 << 20
            assert not _firing(_asked(own, "alerts"))
            ran = served.ask(
                "POST", "/v1/machines/web/run", {"argv": ["sh", "-c", "tail /dev/zero"], "time_limit": 120}
            ).json
            assert ran["status"] == 137, ran
            alerts = _until(own, "alerts", _firing)
            fired = {(one["labels"]["alertname"], one["labels"].get("machine")) for one in alerts}
            assert ("TinamouGuestOutOfMemory", "web") in fired
            assert operation(served, served.ask("DELETE", "/v1/machines/web?force=true"))["state"] == "done"
        finally:
            scraper.send_signal(signal.SIGTERM)
            scraper.wait(PATIENCE)
            served.ask("DELETE", "/v1/machines/web?force=true&wait=30")


def _firing(found: Any) -> list[Any]:
    about = [one for one in found["alerts"] if one["labels"]["alertname"] == "TinamouGuestOutOfMemory"]
    return [one for one in about if one["state"] == "firing"]


def _asked(port: int, what: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=PATIENCE) as answer:
        return json.load(answer)["data"]


def _until(port: int, what: str, holds: Any) -> Any:
    """What Prometheus says once that holds."""
    deadline = time.monotonic() + 4 * PATIENCE
    while time.monotonic() < deadline:
        try:
            if found := holds(_asked(port, what)):
                return found
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"Prometheus does not say so: {what}: {_asked(port, what)}")

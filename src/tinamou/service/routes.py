"""Everything that can be asked for under /v1, in one table; what is not in it does not exist."""

from __future__ import annotations

from tinamou.service import changing as do
from tinamou.service import events, said, streams, transfer
from tinamou.service import reading as look
from tinamou.service.table import Call, Nothing, Route

__all__ = ["ROUTES"]

_M = "/v1/machines/{name}"
_FILES = f"{_M}/files"
_BYTES = "application/octet-stream"


def _long(
    method: str, path: str, verb: str, summary: str, call: Call, body: type = Nothing, query: type = said.Waiting
) -> Route:
    """A route whose answer is an operation."""
    return Route(method, path, verb, summary, call, body, query, "Operation", status=202, long=True)


ROUTES: list[Route] = [
    Route("GET", "/v1/me", "", "Who asks, and what they may do.", look.me, answer="Me"),
    Route("GET", "/v1/schema", "", "JSON Schema of a machine's description.", look.schema),
    Route("GET", "/v1/machines", "", "The machines, by name.", look.listing, query=said.Listing, answer="Machines"),
    _long("POST", "/v1/machines", "create", "Make a machine and start it.", do.create, said.Creating),
    Route("POST", "/v1/plan", "plan", "What would be made, and why.", look.plan, said.Planning, answer="Plan"),
    Route("GET", _M, "show", "Everything about one machine.", look.one, answer="Machine"),
    _long("DELETE", _M, "rm", "Remove a machine.", do.remove, query=said.Removing),
    Route("GET", f"{_M}/plan", "show", "The plan of its next start, and why.", look.plan_of, answer="Plan"),
    Route("GET", f"{_M}/stats", "stats", "What it uses, over half a second.", look.numbers),
    Route("GET", f"{_M}/disks", "show", "Its disks.", look.disks, answer="Disks"),
    Route("GET", f"{_M}/nics", "show", "Its network cards.", look.nics, answer="Nics"),
    Route("GET", f"{_M}/logs", "logs", "The end of a log.", look.logs, query=said.Logs, media="text/plain"),
    _long("POST", f"{_M}/start", "start", "Start it.", do.start, said.Starting),
    _long("POST", f"{_M}/restart", "start", "Shut it down and start it.", do.restart, said.Stopping),
    _long("POST", f"{_M}/stop", "stop", "Shut its guest down.", do.stop, said.Stopping),
    _long("POST", f"{_M}/kill", "stop", "Cut its power.", do.kill),
    _long("POST", f"{_M}/reset", "stop", "Press its reset button.", do.reset),
    _long("POST", f"{_M}/pause", "pause", "Freeze it.", do.pause),
    _long("POST", f"{_M}/resume", "pause", "Let it run on, or take it up.", do.resume),
    _long("POST", f"{_M}/suspend", "pause", "Save it to disk and end it.", do.suspend),
    _long("POST", f"{_M}/fork", "fork", "Running copies of it.", do.fork, said.Forking),
    _long("POST", f"{_M}/checkpoint", "fork", "Save its whole state.", do.checkpoint, said.Checkpointing),
    Route("GET", f"{_M}/snapshots", "show", "Snapshots of its disks.", look.snapshots, answer="Snapshots"),
    _long("POST", f"{_M}/snapshots", "snapshot", "Take one.", do.snapshot, said.SnapshotTaking),
    _long("POST", f"{_M}/snapshots/{{snapshot}}/revert", "snapshot", "Go back to one.", do.revert),
    _long("DELETE", f"{_M}/snapshots/{{snapshot}}", "snapshot", "Remove one.", do.snapshot_remove),
    _long("POST", f"{_M}/nics/{{nic}}/link", "net", "Plug its cable in or out.", do.link, said.Linking),
    _long("POST", f"{_M}/diagnose", "net", "Diagnose its network.", do.diagnose, said.Diagnosing),
    Route("POST", f"{_M}/run", "exec", "Run a command in its guest.", look.run, said.Running, answer="Ran"),
    Route("GET", _FILES, "cp", "A file of its guest.", transfer.get, query=said.Transfer, media=_BYTES),
    Route("PUT", _FILES, "cp", "Write one.", transfer.put, Nothing, said.Transfer, "Written", streams=True),
    Route("GET", f"{_M}/screenshot", "screen", "A picture of its screen.", look.screenshot, media="image/png"),
    Route("POST", f"{_M}/screen/ticket", "screen", "Let a page open this.", streams.screen_ticket, answer="Ticket"),
    Route(
        "POST",
        f"{_M}/screen/password",
        "screen",
        "Let a viewer in by TCP for a while.",
        look.let_in,
        said.LettingIn,
        answer="Viewing",
    ),
    Route("POST", f"{_M}/console/ticket", "console", "Let a page open this.", streams.console_ticket, answer="Ticket"),
    Route("POST", f"{_M}/exec/ticket", "exec", "Let a page open this.", streams.exec_ticket, answer="Ticket"),
    Route("WEBSOCKET", f"{_M}/screen", "screen", "Its screen, by VNC.", streams.screen_of),
    Route("WEBSOCKET", f"{_M}/console", "console", "Its serial console.", streams.console_of),
    Route("WEBSOCKET", f"{_M}/exec", "exec", "A command in its guest, with input and terminal.", streams.exec_in),
    Route(
        "GET", "/v1/operations", "", "Operations, newest first.", look.operations, query=said.Listing, answer="Operations"
    ),
    Route("GET", "/v1/operations/{operation}", "", "One.", look.operation, query=said.Waiting, answer="Operation"),
    Route("POST", "/v1/operations/{operation}/cancel", "", "End it.", look.cancel, answer="Operation", status=202),
    Route("GET", "/v1/events", "events", "What happens.", events.stream, query=said.Since, media="text/event-stream"),
    Route("GET", "/v1/doctor", "doctor", "What is wrong with the host.", look.doctor),
    Route("GET", "/v1/findings", "doctor", "What is wrong with machines now.", look.findings, answer="Findings"),
    Route("GET", "/v1/host", "doctor", "The host's processors and memory.", look.host),
    Route("GET", "/metrics", "stats", "Numbers.", look.metrics, query=said.Numbers, media="application/openmetrics-text"),
]

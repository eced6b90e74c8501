"""Serves E2B's protocol on a port of this host: ``python e2b_server.py PORT [TEMPLATES.toml]``, until it is ended."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from tinamou.service.agents.e2b.app import application
from tinamou.service.agents.e2b.templates import load

if __name__ == "__main__":
    app = application(load(Path(sys.argv[2]) if len(sys.argv) > 2 else None))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=2)

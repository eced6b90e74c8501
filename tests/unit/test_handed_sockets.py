"""A helper's socket is connected to as soon as it listens."""

import socket
import threading
import time

import pytest

from tinamou.launch import handover
from tinamou.system.sockets import NotListeningError


def test_name_before_it_listens(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as helper:
        helper.bind(path)
        later = threading.Thread(target=lambda: (time.sleep(0.05), helper.listen(1)))
        later.start()
        descriptor = handover._connect(path)
        later.join()
        assert socket.socket(fileno=descriptor).getpeername() == path


def test_never_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(handover, "_LISTEN_SECONDS", 0.02)
    with socket.socket(socket.AF_UNIX) as helper:
        helper.bind(str(tmp_path / "s"))
        with pytest.raises(NotListeningError):
            handover._connect(str(tmp_path / "s"))

"""A running machine whose entry says its memory is encrypted: it is neither saved nor reset, and runs on as if nobody asked.

It is written into the entry of an ordinary guest, as no processor that has it was at hand: what is shown is that every
command asks before it does anything.
"""

from __future__ import annotations

import json

import pytest
from typed import call

from tinamou import Machine
from tinamou.errors import StateError
from tinamou.snapshots.checkpoint import checkpoints_dir
from tinamou.state import machines
from tinamou.state.record import change

pytestmark = pytest.mark.vm


def test_saving_and_resetting_are_refused_before_anything_is_done():
    with Machine(name="sealed", keep=True, forkable=True) as machine:
        machine.run("touch /tmp/still-here")
        sealed = change(machines.find("sealed"), encrypted="SEV-SNP")
        machine._machine.connected.record = sealed
        assert json.loads(call("show", "sealed", "--json").stdout)["encrypted"] == "SEV-SNP"
        for words, done in [
            (("suspend", "sealed"), "suspended"),
            (("checkpoint", "sealed"), "checkpointed or forked"),
            (("checkpoint", "sealed", "--kind", "portable"), "checkpointed or forked"),
            (("fork", "sealed"), "checkpointed or forked"),
            (("reset", "sealed"), "reset"),
        ]:
            said = call(*words)
            assert (said.returncode, said.stdout) == (StateError.code, ""), said
            assert f"sealed cannot be {done}" in said.stderr and "SEV-SNP" in said.stderr
        for ask in (machine.suspend, machine.reset, machine.fork, machine.checkpoint):
            with pytest.raises(StateError, match="sealed cannot be"):
                ask()
        assert machine.run("ls /tmp/still-here").status == 0
        assert not list(checkpoints_dir().glob("*")) and not sealed.file("suspended").exists()
        machine.kill()

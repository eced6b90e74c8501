"""The verb ``accel``: which accelerators were tried here, what happened, and in how many milliseconds."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.machine.gather import native_arch
from tinamou.probe.accel import probe_accel
from tinamou.probe.qemu import find_binary, probe_qemu


def command(*, arch: str = "", json: Switch = False) -> None:
    """Try every accelerator and report.

    Parameters
    ----------
    arch
        Guest architecture; the host's when left out.
    """
    facts = probe_accel(probe_qemu(find_binary(arch or native_arch())))
    rows = [late.asdict(trial) for trial in facts.trials]
    if json:
        output.print_json(rows)
        return
    output.table(
        [{**row, "works": "yes" if row["works"] else "no", "ms": f"{row['milliseconds']:.0f}"} for row in rows],
        ("accel", "works", "ms", "what"),
    )
    for trial in facts.trials:
        if not trial.works:
            print(f"\n{trial.accel}: {trial.why}" + (f"\n  fix: {trial.fix}" if trial.fix else ""))

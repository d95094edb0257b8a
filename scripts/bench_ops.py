"""Every op against what the machine can do and against torch, interleaved in one run.

    python scripts/bench_ops.py [--threads N] [--rounds R] [--only TEXT] [--json]

A row is a call: the median time, the ceiling that it runs against (memory READ for little work a
byte, the peak of multiplying such factors for much), the share of that ceiling, the time of calls
that do nothing but read as many bytes over ours, and torch's time over ours for the same arithmetic
(above 1: ours is faster). Of paged attention "against in order" it is our own time where blocks lie
as in a cache without pages (below 1: pages take longer).

Ours are called from C, as a model's step calls them: the interpreter takes 2 to 5 us a call. Beside
torch, which it calls, it calls ours too.

A sample is a run of calls of one side, one behind the other as in a model's step: calls for 10 ms
that are not timed, then for 3 ms that are, at least one of each. The first calls behind something
else take longer: threads sleep, AMX does, clocks differ. Runs of all sides take turns, with the
ceilings measured before and after ours, so load on a shared machine touches all alike; shares and
quotients are the medians of those of each turn.

Weights and caches lie in huge pages, as those of packages do, caches at the beginning of a page, as
the runtime's, and no call finds its own in a cache: each reads another copy, and what was read
since that was last read is 512 MiB or more. So is what READ reads: of 256 MiB a last cache of
480 MB, of which others have their share, gave some back. READ has no calls to begin and end, so
short ones do not reach it: it says what the memory could do, the calls that read as many bytes what
a call could. All calls write to the same outputs, as a step's write where the step before did: who
writes to a page first waits for the system to clear it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import click
import torch
from cpu_ops.rows import rows
from cpu_ops.sampling import Ceilings


@click.command()
@click.option("--threads", default=0, help="0: torch's default.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--only", default="", help="Rows whose name holds this.")
@click.option("--json", "as_json", is_flag=True)
def main(threads: int, rounds: int, only: str, as_json: bool) -> None:
    if threads:
        torch.set_num_threads(threads)
    ceilings, results = Ceilings(), []
    for name, row in rows(only):
        for _ in range(rounds):
            row.sample(ceilings)
        results.append({"name": name, **row.result()})
        if not as_json:
            show(results[-1], header=len(results) == 1)
    if as_json:
        click.echo(json.dumps({"threads": torch.get_num_threads(), "rows": results}))


def show(result: dict[str, Any], header: bool) -> None:
    if header:
        click.echo(
            f"{'':44} {'us':>9} {'GB/s':>7} {'GFLOP/s':>8} {'of ceiling':>10} read/ours torch/ours"
        )
    click.echo(
        f"{result['name']:44} {result['us']:9.1f} {result['gb_s']:7.1f} {result['gflop_s']:8.0f} "
        f"{result['ceiling_share']:10.0%} {result['reading_over_ours']:9.2f} "
        f"{result['torch_over_ours']:10.2f}"
    )


def share_one_openmp() -> None:
    """Start again with one OpenMP library for torch and us: two teams spin against each other.

    And with torch's tensors in huge pages, READ's among them: packages map weights by such pages.
    """
    if "libgomp" not in os.environ.get("LD_PRELOAD", ""):
        found = subprocess.run(
            ["g++", "-print-file-name=libgomp.so.1"], capture_output=True, text=True, check=True
        )
        environment = {
            **os.environ,
            "LD_PRELOAD": found.stdout.strip(),
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        }
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)


if __name__ == "__main__":
    share_one_openmp()
    with torch.no_grad():
        main()

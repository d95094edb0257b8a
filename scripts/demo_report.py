"""The demo's closing table: start-up of both programs, tokens a second, share of memory bandwidth.

    python scripts/demo_report.py build/demo/demo.pt2 0,12,345

Start-up is process start to first token, the median of seven processes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from ingot import native

RUNS = 7


def run(*command: str) -> dict[str, Any]:
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def main(package: str, tokens: str) -> None:
    options = ("--tokens", tokens, "--max-new-tokens", "32", "--ignore-eos", "--json")
    programs = {
        "ingot-run (C++)": (str(native.find("ingot-run")), package, *options),
        "ingot run (Python)": (sys.executable, "-m", "ingot", "run", package, *options),
    }
    table = Table("program", "first token ms", "decode tok/s", "peak RSS MB")
    for name, command in programs.items():
        runs = [run(*command) for _ in range(RUNS)]
        median = {
            k: statistics.median(r[k] for r in runs)
            for k in runs[0]
            if k.endswith(("ms", "_s", "mb"))
        }
        table.add_row(
            name,
            f"{median['first_token_ms']:.0f}",
            f"{median['decode_tok_s']:.0f}",
            f"{median['peak_rss_mb']:.0f}",
        )
    bench = run(
        sys.executable,
        "-m",
        "ingot",
        "bench",
        package,
        "--prompt-tokens",
        "256",
        "--new-tokens",
        "64",
        "--json",
    )
    console = Console()
    console.print(table)
    console.print(
        f"prefill {bench['prefill_tok_s']:.0f} tok/s, decode {bench['decode_tok_s']:.0f} tok/s: "
        f"{bench['bandwidth_share']:.0%} of the {bench['read_gb_s']:.1f} GB/s this machine reads"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

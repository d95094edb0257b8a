"""One part of the suite in a process of its own: rows as lines of JSON, each when it is measured.

python -m gpu.worker bench [--only TEXT]
python -m gpu.worker model [--shape SHAPE] [--recipe bf16|int8|int4|compiled]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import torch

from . import ops, timing


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    ceilings = timing.ceilings()
    yield {"name": "copy", "gb_s": ceilings.bytes_s / 1e9}
    yield {"name": "matmul bf16", "tflop_s": ceilings.flops_s / 1e12}
    if arguments.part == "model":
        from . import model

        yield from model.rows(arguments.shape, arguments.recipe, ceilings.bytes_s)
        return
    for row in ops.rows(arguments.only):
        try:
            yield row.measure(ceilings.bytes_s, ceilings.flops_s)
        except Exception as error:  # ours, too: the other rows are still worth having
            yield {"name": row.name, "failed": ops.sentence(error)}
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["bench", "model"])
    parser.add_argument("--only", default="")
    parser.add_argument("--shape", default="llama-3-8b")
    parser.add_argument("--recipe", default="bf16")
    with torch.no_grad():
        for row in rows(parser.parse_args()):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

"""A package for GPUs on the tests' driver, in a process of its own: its Triton kernels by Triton's
interpreter, its ops emulated. Needs TRITON_INTERPRET, LD_LIBRARY_PATH and INGOT_NATIVE_DIR.

    python -m tests.cuda.run_package PACKAGE KERNELS TOKENS

KERNELS: JSON of {name: {"source": ..., "blocks": ...}}. Writes JSON: `logits` of all tokens, what
greedy decoding goes on with (`tokens`), the driver's `counts` by then, what `ingot bench` and
`ingot profile` `measured`, and the logits `again` of the package opened a second time.
"""

from __future__ import annotations

import ctypes
import json
import sys
import traceback
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import ingot
from ingot.runtime import bench_command, profile_command

from .interpreted import Kernel

_FIELDS = "allocations pinned streams events modules graphs contexts bytes kernel_launches"
_FIELDS += " graph_launches copies_to_device copies_to_host captures"
_NEW = 12


class _Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in _FIELDS.split()]


def _profile(package: str) -> Any:
    """What `ingot profile --json` says."""
    with redirect_stdout(StringIO()) as said:
        profile_command.run(
            Path(package),
            recorded=None,
            output=None,
            as_json=True,
            prompt=None,
            tokens=None,
            prompt_tokens=2,
            new_tokens=3,
            texts=(),
            sizes=(),
            repeats=1,
            threads=1,
            verify=False,
            key=None,
        )
    return json.loads(said.getvalue())


_interpreted: list[Any] = []  # what the driver calls must not end before it


def interpreting(kernels: str) -> ctypes.CDLL:
    """The tests' driver, which computes these kernels (the file's name) by Triton's interpreter."""
    known = {
        name: Kernel(name, **facts) for name, facts in json.loads(Path(kernels).read_text()).items()
    }
    driver = ctypes.CDLL("libcuda.so.1")

    @ctypes.CFUNCTYPE(
        ctypes.c_int32,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_uint32),
        ctypes.POINTER(ctypes.c_uint64),
        ctypes.c_size_t,
    )
    def compute(name: bytes, grid: Any, arguments: Any, count: int) -> int:
        try:
            known[name.decode()].run(grid[:3], arguments[:count])
        except Exception:
            traceback.print_exc()
            return 1
        return 0

    driver.fake_cuda_compute(compute)
    _interpreted.append(compute)
    return driver


def main(package: str, kernels: str, tokens: str) -> None:
    driver = interpreting(kernels)
    driver.fake_cuda_counts.restype = _Counts
    prompt = [int(token) for token in tokens.split(",")]
    opened = ingot.load(package, kv_tokens=1024)
    with opened.session() as session:
        logits = session.logits(prompt).tolist()
        session.reset()
        pieces = session.generate(prompt, max_new_tokens=_NEW, ignore_eos=True)
        made = [piece.token for piece in pieces if piece.token >= 0]
    found = driver.fake_cuda_counts()
    counts = {name: getattr(found, name) for name in _FIELDS.split()}
    measured = {"bench": bench_command.measure(opened, 2, 3, 1), "profile": _profile(package)}
    streams = driver.fake_cuda_counts().streams
    del session, opened
    assert driver.fake_cuda_counts().streams == streams - 1  # it is closed
    with ingot.load(package, kv_tokens=1024).session() as session:
        again = session.logits(prompt).tolist()
    result = {"logits": logits, "again": again, "tokens": made, "counts": counts}
    print(json.dumps({**result, "measured": measured}))


if __name__ == "__main__":
    main(*sys.argv[1:])

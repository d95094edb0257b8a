"""What the tests' driver answers to calls that a GPU refuses, in a process of its own, for its name
is a driver's: LD_LIBRARY_PATH says where it is.

    python -m tests.cuda.refused_launches CUBIN NAME POINTERS

The cubin's kernel NAME, of 128 threads, takes so many pointers first. Writes JSON: {call: its
CUresult}.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from ctypes import byref, c_int32, c_uint64, c_void_p
from pathlib import Path

_THREADS = 128


def main(cubin: str, name: str, pointers: str) -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    context, stream, module, function = c_void_p(), c_void_p(), c_void_p(), c_void_p()
    memory = c_uint64()
    for status in (
        cuda.cuInit(0),
        cuda.cuDevicePrimaryCtxRetain(byref(context), 0),
        cuda.cuCtxPushCurrent_v2(context),
        cuda.cuStreamCreate(byref(stream), 1),
        cuda.cuMemAlloc_v2(byref(memory), ctypes.c_size_t(4096)),
    ):
        assert status == 0
    image = Path(cubin).read_bytes()
    loaded = cuda.cuModuleLoadData(byref(module), image)
    if loaded != 0:
        print(json.dumps({"load": loaded}))
        return
    assert cuda.cuModuleGetFunction(byref(function), module, name.encode()) == 0

    def launch(
        grid: tuple[int, int, int] = (1, 1, 1),
        threads: int = _THREADS,
        shared: int = 0,
        address: int = memory.value,
        on: c_void_p = stream,
    ) -> int:
        values = [c_uint64(address) for _ in range(int(pointers))]
        values += [c_uint64(0) for _ in range(16)]
        arguments = (c_void_p * len(values))(*map(ctypes.addressof, values))
        status: int = cuda.cuLaunchKernel(
            function, *grid, threads, 1, 1, shared, on, arguments, None
        )
        return status

    def attribute(value: int) -> int:
        status: int = cuda.cuFuncSetAttribute(function, 8, c_int32(value))
        return status

    inside, outside = memory.value + 4095, memory.value + 4096
    found = {
        "as it should be": launch(),
        "within an allocation": launch(address=inside),
        "beyond an allocation": launch(address=outside),
        "memory of the host": launch(address=ctypes.addressof(memory)),
        "no stream": launch(on=c_void_p()),
        "no blocks": launch((0, 1, 1)),
        "blocks along y": launch((1, 65536, 1)),
        "other threads": launch(threads=2 * _THREADS),
        "shared memory unasked": launch(shared=(48 << 10) + 1),
        "too much is asked for": attribute((227 << 10) + 1),  # of sm_90
        "all is asked for": attribute(227 << 10),
        "and taken": launch(shared=227 << 10),
        "no kernel": cuda.cuModuleGetFunction(byref(function), module, b"other"),
    }
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # nothing is given back


if __name__ == "__main__":
    main(*sys.argv[1:])

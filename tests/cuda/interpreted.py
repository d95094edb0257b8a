"""Inductor's Triton kernels on the CPU, by Triton's interpreter, from what a driver is given at a
launch. For processes with TRITON_INTERPRET=1, which triton reads when it is imported."""

from __future__ import annotations

import ctypes
import itertools
import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch._inductor.runtime import triton_helpers, triton_heuristics
from triton.runtime.interpreter import TensorHandle, _patch_lang, interpreter_builder

_SCRATCH = 2  # pointers behind a kernel's own arguments, which none here uses
_SCALARS: dict[str, tuple[Any, Any, Any]] = {
    "i32": (ctypes.c_int32, np.int32, tl.int32),
    "i64": (ctypes.c_int64, np.int64, tl.int64),
    "fp32": (ctypes.c_float, np.float32, tl.float32),
}


class _Libdevice:
    """The functions of CUDA's library that generated kernels call: torch's have the same names."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def function(*arguments: Any) -> Any:
            given = (torch.from_numpy(np.asarray(x.handle.data)) for x in arguments)
            first = arguments[0]
            data = getattr(torch, name)(*given).numpy()
            return tl.tensor(TensorHandle(data, first.handle.dtype), first.type)

        return function


@dataclass
class Kernel:
    """source: as Inductor writes it. blocks: its configuration, such as XBLOCK."""

    name: str
    source: str
    blocks: dict[str, int]

    def __post_init__(self) -> None:
        self._meta: dict[str, Any] = {}
        namespace: dict[str, Any] = {"__file__": self.name, "__name__": self.name}
        lines = self.source.splitlines(keepends=True)
        linecache.cache[self.name] = (len(self.source), None, lines, self.name)
        triton_helpers.set_driver_to_gpu = lambda: None
        for kind in ("pointwise", "reduction", "persistent_reduction"):
            setattr(triton_heuristics, kind, self._noted)
        exec(compile(self.source, self.name, "exec"), namespace)
        namespace["libdevice"] = _Libdevice()
        self._function = namespace[self.name]

    def _noted(self, **meta: Any) -> Callable[[Any], Any]:
        self._meta = meta["triton_meta"]
        return lambda function: function

    def run(self, grid: Sequence[int], addresses: Sequence[int]) -> None:
        """addresses: of the arguments' values. Raises AssertionError for arguments that the machine
        code was not compiled for."""
        signature: dict[str, str] = self._meta["signature"]
        taken = [(i, name) for i, name in enumerate(signature) if signature[name] != "constexpr"]
        assert len(addresses) == len(taken) + _SCRATCH, (self.name, len(addresses), signature)
        (promises,) = self._meta["configs"]
        given = {**self._meta["constants"], **self.blocks}
        for (i, name), address in zip(taken, addresses[: len(taken)], strict=True):
            given[name] = self._argument(
                name, signature[name], address, dict(promises.get((i,), []))
            )
        for address in addresses[len(taken) :]:
            assert ctypes.c_uint64.from_address(address).value == 0, (self.name, "scratch memory")
        function = self._function.rewrite()
        patched = _patch_lang(function)
        try:
            interpreter_builder.set_grid_dim(*grid)
            for place in itertools.product(*map(range, grid)):
                interpreter_builder.set_grid_idx(*place)
                function(**given)
        finally:
            patched.restore()

    def _argument(self, name: str, kind: str, address: int, promises: dict[str, int]) -> Any:
        if kind.startswith("*"):
            value = ctypes.c_uint64.from_address(address).value
            handle = TensorHandle(np.array([value], np.uint64), tl.str_to_ty(kind, None))
        else:
            c, dtype, handle_type = _SCALARS[kind]
            value = c.from_address(address).value
            handle = TensorHandle(np.array([value], dtype), handle_type)
        assert value % promises.get("tt.divisibility", 1) == 0, (self.name, name, value)
        return tl.tensor(handle, handle.dtype)

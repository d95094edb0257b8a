"""Triton kernels that Inductor wrote, compiled to machine code without running them.

Inductor would run each kernel to choose the fastest of its configurations and to learn how it is
launched. Here the first configuration is taken, the one that its heuristics prefer, and what
remains needs no GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import cache
from ..replaced import environment, replaced
from .architecture import Architecture

_SOURCE = re.compile(r"async_compile\.triton\('\w+', '''(.*)''', device_str='cuda'\)\s*", re.DOTALL)


@contextmanager
def compiler(architecture: Architecture) -> Iterator[None]:
    """While it is open, triton compiles for `architecture`, and neither looks for a GPU nor loads
    what it compiled onto one."""
    from torch._inductor.runtime import triton_helpers
    from triton.backends.compiler import GPUTarget
    from triton.compiler import CompiledKernel
    from triton.runtime import driver

    class Driver:
        def get_current_target(self) -> GPUTarget:
            major, minor = architecture.capability
            return GPUTarget("cuda", 10 * major + minor, 32)

        def get_current_device(self) -> int:
            return 0

    before = driver._active
    driver.set_active(Driver())
    folder = {"TRITON_CACHE_DIR": str(cache.folder() / "triton")}
    try:
        with (
            environment(folder),
            replaced(triton_helpers, set_driver_to_gpu=lambda: None),
            replaced(CompiledKernel, _init_handles=lambda _: None),
        ):
            yield
    finally:
        driver._active = before


def compile_kernel(name: str, source: str) -> None:
    """Compile a kernel, whose source is as Inductor defines it. Its cubin and its launch then
    are where Inductor's C++ wrapper looks for them (CudaKernelParamCache)."""
    from torch._inductor.codecache import PyCodeCache

    found = _SOURCE.fullmatch(source)
    assert found is not None, source
    tuner: Any = getattr(PyCodeCache.load(found[1]), name)
    launcher = tuner._precompile_config(tuner.configs[0]).make_launcher()
    tuner.save_gpu_kernel(0, launcher)


def cubins_of(graph: Any) -> dict[str, Path]:
    """Files of the kernels that a graph launches, by name; `graph` is what Inductor lowered."""
    from torch._inductor.codecache import CudaKernelParamCache

    calls = getattr(graph.wrapper_code, "_triton_call_wrappers", {})
    names = [call.kernel_name for call in calls.values()]
    noted: Any = CudaKernelParamCache.cache
    return {name: Path(noted[name]["cubin_path"]) for name in names}


def assembly(cubins: Mapping[str, Path]) -> str:
    """Source of an object that holds the kernels, by the symbols that Inductor's wrapper knows."""
    lines = ['.section .note.GNU-stack,"",@progbits', ".section .rodata"]
    for name, path in cubins.items():
        lines += [f".balign 16\n.globl {symbol(name)}\n.hidden {symbol(name)}"]
        lines += [f'{symbol(name)}:\n.incbin "{path}"']
    return "\n".join([*lines, ""])


def symbol(name: str) -> str:
    return f"__{name}_start"

"""Inductor's C++ that runs a graph on a GPU: how it is compiled, and parts of it by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .kernels import symbol
from .link import HEADERS

FLAGS = ("-I", str(HEADERS), "-DUSE_CUDA")
# The class that holds the kernels has no base here: the model's classes take long to compile.
_BASE = ": public AOTInductorModelKernelsBase {"
_NO_BASE = "{ public: std::vector<CUmodule> loaded_modules_;"
# What a graph that is a function finds by itself, where it is on the device of its first input.
# The kernels are never unloaded: generated code is not either.
OF_GPU = (
    "    int32_t device_idx_ = -1;",
    "    cudaStream_t stream = nullptr;",
    "    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(inputs.first(), &device_idx_));",
    "    AOTI_TORCH_ERROR_CODE_CHECK("
    "aoti_torch_get_current_cuda_stream(device_idx_, reinterpret_cast<void**>(&stream)));",
    "    static auto& kernels = *new AOTInductorModelKernels;",
)


def launchers(wrapper: str) -> Iterable[str]:
    """The functions that load and launch kernels, and the class that holds these."""
    for pattern in (
        r"^#define CUDA_DRIVER_CHECK.*?^}\n(?=CACHE_TORCH)",
        r"^class AOTInductorModelKernels.*?^};$",
        r"(?<=^using namespace torch::aot_inductor;\n).*?(?=^namespace torch::aot_inductor {$)",
    ):
        found = re.search(pattern, wrapper, re.MULTILINE | re.DOTALL)
        assert found is not None, pattern
        yield found[0].replace(_BASE, _NO_BASE)


def renamed(prefix: str, wrapper: str, kernels: Iterable[str]) -> str:
    """The wrapper with kernels by names that no other graph has; events keep theirs."""
    for name in kernels:
        wrapper = wrapper.replace(symbol(name), symbol(f"{prefix}_{name}"))
    return wrapper

"""Inductor writes code for a GPU that this machine need not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from .. import isa
from ..replaced import replaced
from . import kernels
from .architecture import Architecture

_OPTIONS: dict[str, object] = {
    "aot_inductor.embed_kernel_binary": True,
    "triton.autotune_at_compile_time": False,
    "triton.store_cubin": True,
    "use_static_cuda_launcher": False,
    "compile_threads": 1,
}


@contextmanager
def inductor_targets(architecture: Architecture) -> Iterator[dict[str, object]]:
    """While it is open Inductor sees one GPU, of this architecture; yields the options that go with
    it. The C++ that runs on the host is for any x86-64 that packages run on."""
    from torch._inductor.runtime.hints import DeviceProperties

    forget: Any = DeviceProperties.create.cache_clear  # another's, or those of a GPU that is here
    with ExitStack() as stack:
        options = stack.enter_context(isa.inductor_targets(isa.LEVELS[0]))
        for patch in (*_device(architecture), *_graph(), *_wrapper()):
            stack.enter_context(patch)
        stack.enter_context(kernels.compiler(architecture))
        forget()
        stack.callback(forget)
        yield {**options, **_OPTIONS}


def _device(architecture: Architecture) -> Iterator[AbstractContextManager[None]]:
    """Its properties, as Inductor asks for them."""
    import torch
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor import scheduler
    from torch._inductor.codegen import cpp_wrapper_gpu

    major, minor = architecture.capability
    properties = SimpleNamespace(
        name=architecture.name,
        major=major,
        minor=minor,
        multi_processor_count=architecture.multiprocessors,
        max_threads_per_multi_processor=architecture.threads,
        max_threads_per_block=1024,
        regs_per_multiprocessor=1 << 16,
        shared_memory_per_block=48 << 10,
        shared_memory_per_block_optin=architecture.shared_bytes,
        warp_size=32,
    )
    for owner in (torch.cuda, CudaInterface, CudaInterface.Worker):
        yield replaced(owner, get_device_properties=lambda *_: properties)
    yield replaced(
        torch.cuda,
        get_device_capability=lambda *_: (major, minor),
        current_device=lambda: 0,
    )
    yield replaced(
        CudaInterface,
        get_compute_capability=lambda *_: 10 * major + minor,
        is_bf16_supported=lambda *_, **__: True,
    )
    yield replaced(scheduler, has_triton=lambda: True)
    yield replaced(cpp_wrapper_gpu, get_gpu_type=lambda: "cuda")


def _graph() -> Iterator[AbstractContextManager[None]]:
    """Weights without values, and patterns that Inductor would trace on the GPU to look for."""
    from torch._inductor import graph
    from torch._inductor.fx_passes import misc_patterns, pad_mm

    yield replaced(graph, is_same_tensor=lambda one, other: one is other)
    yield replaced(graph.GraphLowering, can_inline_constant=lambda *_: False)
    yield replaced(pad_mm, _pad_mm_init=lambda *_: None)
    yield replaced(misc_patterns, _misc_patterns_init=lambda *_: None)


def _wrapper() -> Iterator[AbstractContextManager[None]]:
    """The C++ that launches kernels: these are compiled when it is written, inputs are aligned (the
    runtime's are), and each launch is an event."""
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
    from torch._inductor.codegen.cpp_wrapper_gpu import CppWrapperGpu, DeferredTritonCallWrapper
    from torch._inductor.graph import GraphLowering

    define: Any = DeferredTritonCallWrapper.generate
    launch: Any = DeferredTritonCallWrapper.generate_launch_kernel
    call: Any = CppWrapperGpu._generate_kernel_call_helper

    def defined(self: Any, wrapper: Any) -> None:
        kernels.compile_kernel(self.kernel_name, self.kernel_name_to_body[self.kernel_name])
        define(self, wrapper)

    def launched(self: Any, *arguments: Any) -> None:
        from torch._inductor import config

        with config.patch({"cpp.enable_kernel_profile": False}):  # an event of all its arguments
            launch(self, *arguments)

    def called(self: Any, name: str, *arguments: Any, **named: Any) -> None:
        self.writeline("{")
        self.writeline(f'RAIIAtenRecordFunctionHandle record_{name}("{name}", nullptr);')
        call(self, name, *arguments, **named)
        self.writeline("}")

    yield replaced(GraphLowering, codegen_with_cpp_wrapper=GraphLowering.codegen)
    yield replaced(
        CppWrapperGpu,
        codegen_inputs=CppWrapperCpu.codegen_inputs,
        _generate_kernel_call_helper=called,
    )
    yield replaced(DeferredTritonCallWrapper, generate=defined, generate_launch_kernel=launched)

"""Compile: an ExportedProgram becomes one shared object, by AOTInductor.

The object links against `libingot_host.so.1` by soname and nothing of libtorch, so it runs in
whichever host the process opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch.export import ExportedProgram

from .. import native
from ..custom_ops.cost import Load
from ..custom_ops.shims import c_shims, schemas
from ..profiling.record import Recorder
from . import cache, provenance
from .build import CppBuild, replaces_inductors
from .cache import Compiled
from .contracts import Contract
from .errors import ExportError
from .isa import IsaLevel, inductor_targets
from .op_library import OpLibrary

HOST = "libingot_host.so.1"

# Inductor's own timers (torch._dynamo.utils): what we call each, and the timer that runs inside it
# and must be taken off.
_TIMERS = {
    "create_aot_dispatcher_function": ("decompositions", None),
    "_recursive_pre_grad_passes": ("pre-grad passes", None),
    "_recursive_joint_graph_passes": ("joint-graph passes", None),
    "_recursive_post_grad_passes": ("post-grad passes", None),
    "GraphLowering.run": ("lowering", None),
    "Scheduler.__init__": ("scheduling", None),
    "GraphLowering.codegen": ("code generation", "Scheduler.__init__"),
    "AotCodeCompiler.compile": ("C++ compile and link", None),
}


def inductor_options(contract: Contract) -> dict[str, Any]:
    own = [f":{contract.op_library.soname}"] if contract.op_library else []
    return {
        "aot_inductor.link_libtorch": False,
        "aot_inductor.custom_ops_to_c_shims": c_shims() | contract.own_shims,
        "aot_inductor.custom_op_libs": [f":{HOST}", *own],
        "aot_inductor.check_lowerbound": False,  # sizes from 1; the runtime checks inputs
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.package": True,
        "aot_inductor.package_constants_in_so": False,
        "aot_inductor.package_constants_on_disk_format": "pickle_weights",
        "size_asserts": False,  # of ops' results: ours are tested, and each is a branch at run time
        "cpp.dynamic_threads": True,
        "cpp.enable_kernel_profile": True,
    }


@contextmanager
def inductor_for(contract: Contract, level: IsaLevel) -> Iterator[dict[str, Any]]:
    """While it is open Inductor compiles for `level`, with the options that it yields."""
    with (
        inductor_targets(level) as target,
        _environment(contract.op_library),
        _without_input_checks(),
    ):
        yield {**inductor_options(contract), **target}


def compile(
    program: ExportedProgram,
    contract: Contract,
    key: str,
    options: dict[str, Any],
    build: CppBuild,
    recorder: Recorder,
) -> Compiled:
    """Compile with `inductor_for`'s options, publish under `key`; phases go into `recorder`."""
    import torch._inductor

    assert program.example_inputs is not None
    shapes = [fact["shape"] for fact in contract.inputs]
    load = provenance.LOAD if contract.ragged else Load()
    with (
        _timers(recorder),
        replaces_inductors(build) as made,
        provenance.scheduled(shapes, load) as schedule,
        torch.no_grad(),
    ):
        try:
            torch._inductor.aot_compile(
                program.module(check_guards=False), program.example_inputs[0], options=options
            )
        except torch._inductor.exc.InductorError as error:
            if isinstance(error.inner_exception, ExportError):
                raise error.inner_exception from None
            raise
    (built,) = made
    recorder.note("cpp_seconds", built.seconds)
    calls = provenance.as_run(schedule.calls, built.wrapper, built.kernels)
    facts = {"calls": [asdict(call) for call in calls]}
    compiled = Compiled(
        built.shared_object, tuple(sorted(built.constants)), _called_ops(program), facts
    )
    return cache.publish(key, compiled, built.sources)


def _called_ops(program: ExportedProgram) -> tuple[str, ...]:
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    return tuple(name for name in schemas() if f"ingot.{name}.default" in called)


@contextmanager
def _environment(library: OpLibrary | None) -> Iterator[None]:
    """Where the linker finds the host and the user's ops; an Inductor cache of our own."""
    folders = [native.find(HOST).parent] + ([library.path.parent] if library else [])
    wanted = {
        "LIBRARY_PATH": os.pathsep.join(map(str, folders)),
        "TORCHINDUCTOR_CACHE_DIR": str(cache.folder() / "inductor"),
        "TORCHINDUCTOR_VEC_ISA_OK": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_input_checks() -> Iterator[None]:
    """Generated code checks no input: the runtime has, and each check costs seconds to compile."""
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    def none(self: Any) -> None:
        self.prefix.splice_aot("static void __check_inputs_outputs(void*, void*) {}")

    theirs = CppWrapperCpu.generate_input_output_runtime_checks
    CppWrapperCpu.generate_input_output_runtime_checks = none  # type: ignore[method-assign]
    try:
        yield
    finally:
        CppWrapperCpu.generate_input_output_runtime_checks = theirs  # type: ignore[method-assign]


@contextmanager
def _timers(recorder: Recorder) -> Iterator[None]:
    """Copy what Inductor's own timers measured meanwhile into the open phase."""
    from torch._dynamo.utils import compilation_time_metrics

    def totals() -> dict[str, float]:
        return {name: sum(compilation_time_metrics.get(name, ())) for name in _TIMERS}

    before = totals()
    yield
    after = totals()
    for timer, (name, inner) in _TIMERS.items():
        seconds = after[timer] - before[timer]
        if inner is not None:
            seconds -= after[inner] - before[inner]
        if seconds > 0:
            recorder.add(name, seconds)

"""Compile: an ExportedProgram becomes one shared object, by AOTInductor.

The object links against `libingot_host.so.1` by soname and nothing of libtorch, so it runs in
whichever host the process opened.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from torch.export import ExportedProgram

from .. import native
from ..custom_ops.cost import Load
from ..custom_ops.shims import c_shims, schemas
from ..profiling.record import Recorder
from . import cache, provenance, torch_versions
from .build import Built, CppBuild, replaces_inductors
from .cache import Compiled
from .contracts import Contract
from .errors import ExportError
from .isa import IsaLevel, inductor_targets
from .memory_plan import memory_plan
from .op_library import OpLibrary

HOST = "libingot_host.so.1"

# What Inductor times of itself (`dynamo_timed`), and what we call each.
_PHASES = {
    "create_aot_dispatcher_function": "decompositions",
    "_recursive_pre_grad_passes": "pre-grad passes",
    "_recursive_joint_graph_passes": "joint-graph passes",
    "additional_fake_tensor_prop": "shape propagation",
    "_recursive_post_grad_passes": "post-grad passes",
    "GraphLowering.run": "lowering",
    "Scheduler.__init__": "scheduling",
    "GraphLowering.codegen": "code generation",
    "AotCodeCompiler.compile": "C++ compile and link",
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
        _counted_from_zero(),
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
    with recorder.phase("capture"):
        module = program.module(check_guards=False)
    shapes = [fact["shape"] for fact in contract.inputs]
    load = provenance.LOAD if contract.ragged else Load()
    with (
        _phases(recorder),
        replaces_inductors(build) as made,
        provenance.scheduled(shapes, load) as schedule,
        torch.no_grad(),
    ):
        try:
            torch._inductor.aot_compile(
                module,
                program.example_inputs[0],
                options=torch_versions.inductor_options(options),
            )
        except torch._inductor.exc.InductorError as error:
            if isinstance(error.inner_exception, ExportError):
                raise error.inner_exception from None
            raise
    (built,) = made
    with recorder.phase("publish"):
        facts = _facts(built, schedule, program, contract)
        compiled = Compiled(
            built.shared_object, tuple(sorted(built.constants)), _called_ops(program), facts
        )
        return cache.publish(key, compiled, built.sources)


def _facts(
    built: Built, schedule: provenance.Schedule, program: ExportedProgram, contract: Contract
) -> dict[str, Any]:
    """What the compile record says of the graph."""
    calls = provenance.as_run(schedule.calls, built.wrapper, built.kernels)
    return {
        "graph": {"exported_nodes": _nodes(program), "lowered_nodes": schedule.nodes},
        "calls": [asdict(call) for call in calls],
        "memory_plan": memory_plan(built.wrapper, schedule.buffers, contract.inputs),
    }


def _nodes(program: ExportedProgram) -> int:
    return sum(node.op == "call_function" for node in program.graph.nodes)


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
        self.prefix.splice("static void __check_inputs_outputs(void*, void*) {}")

    theirs = CppWrapperCpu.generate_input_output_runtime_checks
    CppWrapperCpu.generate_input_output_runtime_checks = none  # type: ignore[method-assign]
    try:
        yield
    finally:
        CppWrapperCpu.generate_input_output_runtime_checks = theirs  # type: ignore[method-assign]


@contextmanager
def _counted_from_zero() -> Iterator[None]:
    """Inductor numbers a process's graphs, and kernels have the number in their names: code and
    record are the same whatever was compiled before, another level of the same graph above all."""
    from torch._inductor import compile_fx

    theirs = compile_fx._graph_counter
    compile_fx._graph_counter = itertools.count()
    try:
        yield
    finally:
        compile_fx._graph_counter = theirs


@contextmanager
def _phases(recorder: Recorder) -> Iterator[None]:
    """What Inductor times of itself becomes phases: it tells its event log when each begins and
    ends."""
    from torch._dynamo.utils import get_chromium_event_logger

    log: Any = get_chromium_event_logger()
    starts, ends = log.log_event_start, log.log_event_end
    main, running = threading.get_ident(), list[ExitStack]()

    def start(event: str, time_ns: int, metadata: dict[str, Any], *rest: Any, **named: Any) -> None:
        starts(event, time_ns, metadata, *rest, **named)
        if threading.get_ident() == main:
            name = _PHASES.get(metadata.get("fn_name", event))
            running.append(ExitStack())
            if name is not None:
                running[-1].enter_context(recorder.phase(name))

    def end(*arguments: Any, **named: Any) -> None:
        if threading.get_ident() == main:
            running.pop().close()
        ends(*arguments, **named)

    log.log_event_start, log.log_event_end = start, end
    try:
        yield
    finally:
        del log.log_event_start, log.log_event_end  # the class's own are there again

"""Compile: an ExportedProgram becomes one shared object, by AOTInductor.

The object links against `libingot_host.so.1` by soname and nothing of libtorch, so it runs in
whichever host the process opened.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from .. import native
from ..custom_ops.cost import Load
from ..custom_ops.shims import c_shims, schemas
from ..profiling.calls import Call
from ..profiling.record import Recorder
from . import cache, provenance, torch_versions
from .build import CppBuild
from .cache import Compiled
from .contracts import Contract
from .cuda.link import LIBRARY as CUDA_HOST
from .cuda.link import stand_in
from .cuda.program import on_gpu
from .errors import ExportError
from .isa import IsaLevel, inductor_targets
from .memory_plan import Wrapper, memory_plan
from .op_library import OpLibrary
from .repeated import NAME, Blocks, shim_name
from .replaced import environment, replaced
from .targets import Target
from .wrapper import Generated, intercepted

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
}
_SHIMS = "aot_inductor.custom_ops_to_c_shims"


def inductor_options(contract: Contract, device: str) -> dict[str, Any]:
    hosts = [HOST, CUDA_HOST] if device == "cuda" else [HOST]
    own = [f":{contract.op_library.soname}"] if contract.op_library else []
    return {
        "aot_inductor.link_libtorch": False,
        _SHIMS: c_shims(device) | contract.own_shims,
        "aot_inductor.custom_op_libs": [*(f":{host}" for host in hosts), *own],
        "aot_inductor.check_lowerbound": False,  # sizes from 1; the runtime checks inputs
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.package": True,
        "aot_inductor.package_constants_in_so": False,
        "aot_inductor.package_constants_on_disk_format": "pickle_weights",
        "size_asserts": False,  # of ops' results: ours are tested, and each is a branch at run time
        "cpp.dynamic_threads": True,
        # A sum of three tensors that is used twice is stored: else a residual stream is summed anew
        # in every layer, from more and more tensors.
        "realize_reads_threshold": 2,
        "cpp.enable_kernel_profile": True,
    }


@contextmanager
def inductor_for(contract: Contract, target: Target) -> Iterator[dict[str, Any]]:
    """While it is open Inductor compiles for `target`, with the options that it yields."""
    with (
        _targeting(target) as options,
        _environment(contract.op_library, target.device),
        _without_input_checks(),
        _counted_from_zero(),
        _without_attention_patterns(),
        _with_quick_strides(),
        _with_own_erf(),
    ):
        yield {**inductor_options(contract, target.device), **options}


def _targeting(target: Target) -> AbstractContextManager[dict[str, object]]:
    if isinstance(target, IsaLevel):
        return inductor_targets(target)
    from .cuda import inductor

    return inductor.inductor_targets(target)


def compile(
    program: ExportedProgram,
    blocks: Blocks | None,
    contract: Contract,
    key: str,
    options: dict[str, Any],
    build: CppBuild,
    recorder: Recorder,
) -> Compiled:
    """Compile with `inductor_for`'s options, publish under `key`; phases go into `recorder`.

    blocks: those that the program calls as one op.
    """
    if blocks is not None:
        options = {**options, _SHIMS: {**options[_SHIMS], blocks.op: [blocks.shim(build.device)]}}
    shapes = [fact["shape"] for fact in contract.inputs]
    model = _generate(program, shapes, contract, options, build.device, recorder)
    given: list[bool] = []
    if blocks is not None:
        wrapper, given = blocks.give(model.code.wrapper, build.device)
        model = replace(model, code=replace(model.code, wrapper=wrapper))
    build.add_model(model.code, unrecorded=shim_name(build.device))
    kinds: dict[str, Graph] = {}
    if blocks is not None:
        letters = _letters(program, contract)
        for kind in blocks.kinds:
            with recorder.phase("capture"):
                block = blocks.capture(kind, program)
            shapes = [_shape(node, letters) for node in blocks.arguments(kind, program)]
            kinds[kind.name] = _generate(block, shapes, contract, options, build.device, recorder)
        code = {name: graph.code for name, graph in kinds.items()}
        build.add_functions(NAME, code, blocks.source(build.device, given))
    with recorder.phase("C++ compile and link"):
        shared_object = build.link()
    with recorder.phase("publish"):
        compiled = Compiled(
            shared_object,
            tuple(sorted(model.code.constants)),
            _called_ops([model, *kinds.values()]),
            _facts(model, kinds, blocks, contract),
        )
        return cache.publish(key, compiled, build.sources())


@dataclass(frozen=True)
class Graph:
    """A captured graph, and what Inductor made of it."""

    program: ExportedProgram
    schedule: provenance.Schedule
    code: Generated
    device: str

    @property
    def exported_nodes(self) -> int:
        return sum(node.op == "call_function" for node in self.program.graph.nodes)

    @property
    def wrapper(self) -> Wrapper:
        return Wrapper(self.code.wrapper, self.schedule.buffers)

    @property
    def calls(self) -> list[Call]:
        code = self.code
        return provenance.as_run(self.schedule.calls, code.wrapper, code.kernels, self.device)


def _generate(
    program: ExportedProgram,
    shapes: list[list[str | int]],
    contract: Contract,
    options: dict[str, Any],
    device: str,
    recorder: Recorder,
) -> Graph:
    """shapes: of the graph's inputs, by the contract's letters."""
    import torch._inductor

    assert program.example_inputs is not None
    with recorder.phase("capture"):
        if device == "cuda":
            module, inputs = on_gpu(program)
        else:
            module, inputs = program.module(check_guards=False), program.example_inputs[0]
    load = provenance.LOAD if contract.ragged else Load()
    with (
        _phases(recorder),
        intercepted() as found,
        provenance.scheduled(shapes, load) as schedule,
        torch.no_grad(),
    ):
        try:
            torch._inductor.aot_compile(
                module,
                inputs,
                options=torch_versions.inductor_options(options),
            )
        except torch._inductor.exc.InductorError as error:
            if isinstance(error.inner_exception, ExportError):
                raise error.inner_exception from None
            raise
    (code,) = found
    return Graph(program, schedule, code, device)


def _facts(
    model: Graph, kinds: dict[str, Graph], blocks: Blocks | None, contract: Contract
) -> dict[str, Any]:
    """What the compile record says of the graph."""
    of_blocks = [] if blocks is None else _calls_of_blocks(blocks, kinds)
    calls: list[Call] = []
    for call in model.calls:
        calls += of_blocks if call.name == shim_name(model.device) else [call]
    graphs = [model, *kinds.values()]
    in_turn = [kinds[call.kind.name].wrapper for call in blocks.calls] if blocks else []
    return {
        "graph": {
            "exported_nodes": sum(graph.exported_nodes for graph in graphs),
            "lowered_nodes": sum(graph.schedule.nodes for graph in graphs),
        },
        "calls": [asdict(call) for call in calls],
        "memory_plan": memory_plan(model.wrapper, in_turn, contract.inputs),
    }


def _calls_of_blocks(blocks: Blocks, kinds: dict[str, Graph]) -> list[Call]:
    """The calls that the blocks make, in the order in which they run."""
    calls = {name: graph.calls for name, graph in kinds.items()}
    return [
        replace(
            call,
            module=_path(block.path, call.module),
            modules=tuple(_path(block.path, module) for module in call.modules),
        )
        for block in blocks.calls
        for call in calls[block.kind.name]
    ]


def _path(block: str, module: str) -> str:
    """A module's path, from that which it has where the block is a graph of its own: "block"."""
    _, _, inner = module.partition(".")
    return f"{block}.{inner}" if inner else block


def _letters(program: ExportedProgram, contract: Contract) -> dict[Any, str | int]:
    """What the contract calls the sizes of the program's inputs that vary."""
    placeholders = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    tensors = [placeholders[name].meta["val"] for name in program.graph_signature.user_inputs]
    return {
        size.node.expr: letter
        for tensor, fact in zip(tensors, contract.inputs, strict=True)
        for size, letter in zip(tensor.shape, fact["shape"], strict=True)
        if isinstance(size, torch.SymInt)
    }


def _shape(node: Node, letters: dict[Any, str | int]) -> list[str | int]:
    sizes = node.meta["val"].shape
    return [letters.get(s.node.expr, str(s)) if isinstance(s, torch.SymInt) else s for s in sizes]


def _called_ops(graphs: list[Graph]) -> tuple[str, ...]:
    called = {str(node.target) for graph in graphs for node in graph.program.graph.nodes}
    return tuple(name for name in schemas() if f"ingot.{name}.default" in called)


@contextmanager
def _environment(library: OpLibrary | None, device: str) -> Iterator[None]:
    """Where the linker finds the host and the user's ops; an Inductor cache of our own."""
    folders = [native.find(HOST).parent] + ([library.path.parent] if library else [])
    folders += [stand_in().parent] if device == "cuda" else []
    wanted = {
        "LIBRARY_PATH": os.pathsep.join(map(str, folders)),
        "TORCHINDUCTOR_CACHE_DIR": str(cache.folder() / "inductor"),
        "TORCHINDUCTOR_VEC_ISA_OK": "1",
    }
    with environment(wanted):
        yield


@contextmanager
def _without_input_checks() -> Iterator[None]:
    """Generated code checks no input: the runtime has, and each check costs seconds to compile."""
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    def none(self: Any) -> None:
        self.prefix.splice("static void __check_inputs_outputs(void*, void*) {}")

    with replaced(CppWrapperCpu, generate_input_output_runtime_checks=none):
        yield


@contextmanager
def _counted_from_zero() -> Iterator[None]:
    """Inductor numbers a process's graphs, and kernels have the number in their names: code and
    record are the same whatever was compiled before, another level of the same graph above all."""
    from torch._inductor import compile_fx

    with replaced(compile_fx, _graph_counter=itertools.count()):
        yield


@contextmanager
def _without_attention_patterns() -> Iterator[None]:
    """Inductor looks for no attention to replace by a kernel of libtorch's, which the host has not;
    to prepare the patterns takes it half a second."""
    from torch._inductor.fx_passes import fuse_attention, joint_graph

    try:
        with replaced(fuse_attention, _sfdp_init=lambda *_: None):
            yield
    finally:
        # Whoever compiles next in this process has them.
        joint_graph.lazy_init.cache_clear()  # type: ignore[attr-defined]


class _QuickSympy:
    """sympy, but a polynomial is simplified by expanding it, which makes equal ones alike."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sympy, name)

    @staticmethod
    def simplify(expression: Any) -> Any:
        return (sympy.expand if expression.is_polynomial() else sympy.simplify)(expression)


@contextmanager
def _with_quick_strides() -> Iterator[None]:
    """Inductor looks for strides in indices, polynomials most of them. All that sympy.simplify
    tries, and the units of physics that it imports first, take it half a second."""
    from torch._inductor import sizevars

    with replaced(sizevars, sympy=_QuickSympy()):
        yield


@contextmanager
def _with_own_erf() -> Iterator[None]:
    """Vectors have the erf of include/ingot/erf.h."""
    from torch._inductor.codegen.cpp import CppVecOverrides

    with replaced(CppVecOverrides, erf=staticmethod(lambda x: f"ingot::erf({x})")):
        yield


@contextmanager
def _phases(recorder: Recorder) -> Iterator[None]:
    """What Inductor times of itself becomes phases: it tells its event log when each begins and
    ends."""
    from torch._dynamo.utils import get_chromium_event_logger

    log: Any = get_chromium_event_logger()
    starts, ends = log.log_event_start, log.log_event_end
    main, running = threading.get_ident(), list[ExitStack]()

    def start(event: str, time_ns: int, metadata: dict[str, Any], *rest: Any, **named: Any) -> None:
        if threading.get_ident() == main:
            name, phase = _PHASES.get(metadata.get("fn_name", event)), ExitStack()
            if name is not None:
                phase.enter_context(recorder.phase(name))  # which a signal may end: nothing began
            running.append(phase)
        starts(event, time_ns, metadata, *rest, **named)

    def end(*arguments: Any, **named: Any) -> None:
        if threading.get_ident() == main:
            running.pop().close()
        ends(*arguments, **named)

    log.log_event_start, log.log_event_end = start, end
    try:
        yield
    finally:
        del log.log_event_start, log.log_event_end  # the class's own are there again

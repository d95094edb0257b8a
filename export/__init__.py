"""Export: checkpoint -> module -> graph -> compiled code -> one package.

>>> from ingot.export import export_checkpoint
>>> record = export_checkpoint(Path("demo/checkpoint"), Path("demo.pt2"), dtype="bfloat16")
"""

from __future__ import annotations

import gc
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..profiling.record import Recorder
from . import torch_versions
from .errors import ExportError
from .onnx import check_options, export_onnx

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .. import models
    from ..models import Model
    from ..quant import Recipe
    from .archive import ArchiveWriter
    from .cache import Compiled
    from .contracts import Contract
    from .loading import Loading
    from .targets import Target
    from .weights import WeightStore

__all__ = ["ExportError", "export_checkpoint", "export_model", "export_module"]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Tracing makes millions of objects that live on; looking for garbage there costs a tenth."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _silent(_: str) -> None:
    pass


@_no_collection()
def export_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    dtype: str = "float32",
    kv_dtype: str = "auto",
    max_seq_len: int | None = None,
    image_size: int | None = None,
    quant: str | None = None,
    group_size: int | None = None,
    activation_bits: int | None = None,
    calib: Path | None = None,
    calib_samples: int = 128,
    calib_length: int | None = None,
    report: Path | None = None,
    isa: str | None = None,
    device: str = "cpu",
    cuda_arch: str | None = None,
    format: str = "package",
    progress: Callable[[str], None] = _silent,
    since: float | None = None,
) -> dict[str, Any]:
    """Cast a checkpoint folder into a package at `output`; returns the compile record.

    quant: a recipe's name or file (quant/recipe.py); group_size: of its lowest bits;
    activation_bits: of all quantised linears, imported ones too; calib: texts that a recipe is
    calibrated and measured on, of which it takes so many samples of so many tokens; report: texts
    on which the model is measured before and after it is quantised, for the compile record.
    isa: x86-64 levels to build for, "x86-64-v3,x86-64-v4"; default: this machine's. device: "cpu",
    or "cuda" for GPUs of the architectures cuda_arch, "80,90"; default: that of this machine's GPU.
    format: "package", or "onnx" for a model that ONNX Runtime runs (docs/onnx.md).
    `progress` is told the name of each phase as it begins; the record begins at `since`
    (process.now), default now. Raises ExportError, or the models' CheckpointError, with one
    sentence for the user; `output` is then as it was before.
    """
    from .targets import find_targets

    targets = find_targets(device, isa, cuda_arch)
    _check(output)
    if format == "onnx":
        check_options(output, kv_dtype, isa, device)
        kv_dtype = "float32"
    recorder = Recorder("compile", progress, since)
    with recorder.phase("import torch"):
        from .. import models
        from .. import quant as quantise
        from . import contracts
        from .cache import INLINED
        from .loading import Loading
        from .spill import Spill
    with recorder.phase("load checkpoint"):
        if quant is None and group_size is not None:
            raise ExportError("--group-size is for a recipe; give --quant too")
        recipe = None if quant is None else quantise.find(quant, group_size)
        make_plan = partial(
            models.plan, checkpoint, dtype, max_seq_len, kv_dtype=kv_dtype, image_size=image_size
        )
        plan = make_plan()
        texts = None if calib is None else quantise.Calibration(calib, calib_samples, calib_length)
        measured = None if report is None else _report_tokens(plan, recipe, report, calib_length)

    def measure(model: Model) -> None:
        if measured is not None:
            with recorder.phase("measure quality"):
                recorder.note("quality", _quality(make_plan(), model, measured))

    def load(
        keep: models.Keep, plan: models.Plan = plan, phase: models.Phase = recorder.phase
    ) -> Model:
        return quantise.load(
            plan,
            recipe,
            texts,
            activation_bits=activation_bits,
            progress=progress,
            phase=phase,
            keep=keep,
        )

    def contract_of(model: Model) -> Contract:
        recorder.note("quantisation", quantise.report(model))
        recorder.note("aliases", model.aliases(plan.on_disk))
        with recorder.phase("read tokenizer"):
            return contracts.of_checkpoint(model, checkpoint)

    if format == "onnx":
        with Spill(output.resolve().parent) as spill, recorder.phase("load checkpoint"):
            model = load(spill.keep)
        measure(model)
        return export_onnx(contract_of(model), output, recorder)
    with _begun(output) as (archive, store):
        if quantise.is_float(plan, recipe, activation_bits):
            beside = partial(load, plan=make_plan(), phase=models.no_phase)
            with Loading(beside, store.keep, recorder) as loading:
                with recorder.phase("load checkpoint"):
                    model = plan.stand_in(INLINED)
                return _export(contract_of(model), targets, archive, store, recorder, loading)
        with recorder.phase("load checkpoint"):
            model = load(store.keep)
        measure(model)
        return _export(contract_of(model), targets, archive, store, recorder)


def _report_tokens(
    plan: models.Plan, recipe: Recipe | None, texts: Path, length: int | None
) -> Tensor:
    """At most 32 samples of `texts`. Raises ExportError where nothing can be compared on them."""
    from ..quant import Calibration

    config = plan.model.config
    if recipe is None:
        raise ExportError(
            "--report compares a model before and after it is quantised: give --quant"
        )
    if not hasattr(config, "vocab_size"):
        raise ExportError(f"--report is for models of text, which {config.architecture} is not")
    samples = Calibration(texts, 32, length)
    return samples.read(plan.checkpoint, config.max_seq_len, config.vocab_size)


def _quality(plan: models.Plan, model: Model, tokens: Tensor) -> dict[str, float]:
    """The unquantised model of `plan` against `model`."""
    from ..quant import compare, measure

    if model.quantization is None or model.quantization["imported"] is not None:
        raise ExportError(
            "--report compares a model before and after it is quantised, and this checkpoint is"
            " quantised already"
        )
    after = measure(model, tokens)
    return compare(measure(plan.fill(), tokens), after)


@_no_collection()
def export_model(
    model: Model,
    output: Path,
    *,
    name: str,
    isa: str | None = None,
    device: str = "cpu",
    cuda_arch: str | None = None,
    progress: Callable[[str], None] = _silent,
) -> dict[str, Any]:
    """Cast a model that is in memory, as `models.build` makes one of random weights, without a
    tokenizer. Returns the compile record. Raises ExportError; `output` is then as it was before.
    """
    from .targets import find_targets

    targets = find_targets(device, isa, cuda_arch)
    _check(output)
    recorder = Recorder("compile", on_phase=progress)
    with recorder.phase("import torch"):
        from . import contracts
    with recorder.phase("read tokenizer"), tempfile.TemporaryDirectory() as empty:
        contract = contracts.of_checkpoint(model, Path(empty))
    contract.card["name"] = name
    recorder.note("aliases", model.aliases())
    with _begun(output) as (archive, store):
        return _export(contract, targets, archive, store, recorder)


@_no_collection()
def export_module(
    module: nn.Module,
    args: Sequence[object],
    output: Path,
    *,
    dynamic_shapes: Any = None,
    op_library: Path | None = None,
    name: str | None = None,
    isa: str | None = None,
    device: str = "cpu",
    cuda_arch: str | None = None,
    progress: Callable[[str], None] = _silent,
    since: float | None = None,
) -> dict[str, Any]:
    """Cast any module into a package, which `ingot.load(path).run(**arrays)` runs.

    args: example inputs, tensors, for tracing. dynamic_shapes: which of their sizes vary, as
    torch.export.export takes it; a size that varies begins at its `Dim`'s min. The module is in
    eval mode when it is traced, and is not changed. Its float32 `nn.Linear`s and bidirectional
    `scaled_dot_product_attention` go to Ingot's ops. op_library: a shared library with the C shims
    of the module's own ops (examples/own_op), which goes into the package. isa, device,
    cuda_arch, since: as for `export_checkpoint`. Returns the compile record. Raises ExportError;
    `output` is then as it was before.
    """
    from .targets import find_targets

    targets = find_targets(device, isa, cuda_arch)
    if op_library is not None and device != "cpu":
        raise ExportError("--op-library is for CPUs: its ops take no tensors of a GPU")
    _check(output)
    recorder = Recorder("compile", progress, since)
    with recorder.phase("import torch"):
        from .module import contract_of
        from .op_library import read_library
    with recorder.phase("capture"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = None if op_library is None else read_library(op_library)
        name = name or type(module).__name__
        contract = contract_of(module, args, dynamic_shapes, name, library)
    with _begun(output) as (archive, store):
        return _export(contract, targets, archive, store, recorder)


def _check(output: Path) -> None:
    """What can be refused before hours of work are lost on it. Raises ExportError."""
    torch_versions.check()
    folder = output.resolve().parent
    if output.is_dir():
        raise ExportError(f"{output} is a folder; give the path of a file in it")
    if output.exists() and not output.is_file():
        raise ExportError(f"{output} is a device or a pipe; a package is a file of its own")
    if not folder.is_dir():
        raise ExportError(f"no folder {folder} to write {output.name} to; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ExportError(f"folder {folder} cannot be written to; choose another")


@contextmanager
def _begun(output: Path) -> Iterator[tuple[ArchiveWriter, WeightStore]]:
    """A package that is not there until it is whole; first it takes weights."""
    from . import package
    from .archive import ArchiveWriter
    from .weights import WeightStore

    with ArchiveWriter(output) as archive:
        yield archive, WeightStore(archive.begin(package.WEIGHTS))


def _export(
    contract: Contract,
    targets: tuple[Target, ...],
    archive: ArchiveWriter,
    store: WeightStore,
    recorder: Recorder,
    loading: Loading | None = None,
) -> dict[str, Any]:
    """loading: the model for which the contract's stands."""
    with recorder.phase("cache look-up"):
        from . import cache, package
        from .compile import inductor_options
        from .contracts import named_tensors

        options = inductor_options(contract, targets[0].device)
        keys = {target: cache.fingerprint(contract, target, options) for target in targets}
        found = {target: cache.find(key) for target, key in keys.items()}
    variants: dict[str, Any] = {
        target.name: {"cache_hit": made is not None} for target, made in found.items()
    }
    missing = {target: keys[target] for target, made in found.items() if made is None}
    check = (lambda: None) if loading is None else loading.check
    made, headers = _compile(contract, missing, recorder, check) if missing else ({}, {})
    compiled = {target: found[target] or made[target] for target in targets}
    first = compiled[targets[0]].facts
    for name, value in first.items():
        recorder.note(name, value)
    for target, code in compiled.items():
        facts = variants[target.name]
        facts |= {name: value for name, value in code.facts.items() if value != first[name]}
        facts |= {"code_bytes": code.shared_object.stat().st_size} | headers.get(target, {})
    recorder.note("variants", variants)
    tensors = named_tensors(contract.module)
    if loading is not None:
        shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        with recorder.phase("load checkpoint"):
            tensors = named_tensors(loading.result())
        assert shapes == {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    with recorder.phase("plan weights"):
        source = package.Source(contract, compiled)
        store.plan(tensors, source.constants)
    recorder.note("weight_bytes", store.size)
    # The report inside the package ends where it is written, after all that takes time; the
    # returned one has the little that follows too.
    with recorder.phase("write package"):
        package.write(source, archive, store, lambda: recorder.snapshot().to_dict())
    return recorder.finish().to_dict()


def _compile(
    contract: Contract, keys: Mapping[Target, str], recorder: Recorder, check: Callable[[], None]
) -> tuple[dict[Target, Compiled], dict[Target, dict[str, Any]]]:
    """The graph, captured once, compiled for each target; and whether what is made once a machine
    was there. Of several targets each is a phase. check: raises where going on is in vain."""
    with recorder.phase("import compiler"):
        import torch._inductor.compile_fx
        import torch.export._trace  # noqa: F401

        from . import repeated
        from .build import CppBuild
        from .compile import compile, inductor_for
        from .contracts import capture

    check()
    compiled: dict[Target, Compiled] = {}
    with (
        ExitStack() as stack,
        repeated.library() as library,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        builds = {}
        for target in keys:  # all begin to make their headers now
            with inductor_for(contract, target) as options:
                builds[target] = stack.enter_context(CppBuild(options, recorder, target.device))
        program, blocks = contract.program, None
        if program is None:
            with (
                recorder.phase("capture"),
                repeated.stepping_aside(contract.blocks, library) as watch,
            ):
                program = capture(contract)
            blocks = watch.blocks
        for target, key in keys.items():
            with (
                recorder.phase(target.name) if len(keys) > 1 else nullcontext(),
                inductor_for(contract, target) as options,
            ):
                compiled[target] = compile(
                    program, blocks, contract, key, options, builds[target], recorder
                )
        return compiled, {target: {"cached": build.cached} for target, build in builds.items()}

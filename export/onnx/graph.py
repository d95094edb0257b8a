"""From a dense module to an ONNX graph whose nodes say which module they come from."""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch.export import ExportedProgram

from ..errors import ExportError
from .attention import OPSET
from .dense import Signature

MODULE = "namespace"  # a node's metadata: the path of its module
_SCOPES = "pkg.torch.onnx.name_scopes"
_WRAPPER = "model"  # what a dense module calls the model in it


def capture(signature: Signature) -> ExportedProgram:
    """The module's graph for any sizes. Raises ExportError."""
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(
                signature.module,
                signature.args,
                dynamic_shapes=signature.dynamic_shapes,
                strict=False,
            )
    except Exception as error:  # the tracer's own are of many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"the model cannot be traced: {reason}") from error


def translate(program: ExportedProgram, signature: Signature) -> ir.Model:
    """The graph in ONNX's operators, with the signature's names. Raises ExportError."""
    try:
        with torch.no_grad(), _quiet():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=[fact["name"] for fact in signature.inputs],
                output_names=[fact["name"] for fact in signature.outputs],
                verbose=False,
            )
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"the model cannot be said in ONNX: {reason}") from error
    assert made is not None
    model = made.model
    _join_reshapes(model)
    _name_nodes(model.graph)
    _name_sizes(model.graph, signature)
    _set_defaults(model.graph, signature)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on libraries that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _join_reshapes(model: ir.Model) -> None:
    """Of two in a row the second is enough: our modules go from T rows to heads, ONNX's Attention
    wants B x S rows."""
    for node in model.graph:
        first = node.inputs[0].producer() if node.op_type == "Reshape" and node.inputs[0] else None
        if first is not None and first.op_type == "Reshape":
            node.replace_input_with(0, first.inputs[0])
    RemoveUnusedNodesPass()(model)


def _name_nodes(graph: ir.Graph) -> None:
    """Name each node `<module's path>/<operator>`, and keep that path alone as its metadata.

    What ONNX Runtime makes of several nodes it names after one of them, with more behind it: what
    stands before the first slash stays (docs/onnx.md).
    """
    modules = _modules(graph)
    used: Counter[str] = Counter()
    for node in graph:
        name = f"{modules[node]}/{node.op_type}"
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"
        node.metadata_props.clear()  # it names source files of the machine that exported
        node.metadata_props[MODULE] = modules[node]
    for value in list(graph.initializers.values()):
        assert value.name is not None
        value.name = value.name.removeprefix(f"{_WRAPPER}.")


def _modules(graph: ir.Graph) -> dict[ir.Node, str]:
    """Each node's module: as the exporter says; else the one that uses what it makes, such as
    positions; else the one that made what it takes, as a head's logits."""
    modules = {node: _stated(node) for node in graph}
    for _ in range(2):
        for node in reversed(list(graph)):
            users = [modules[use.node] for value in node.outputs for use in value.uses()]
            modules[node] = next(filter(None, [modules[node], *users]), "")
        for node in graph:
            makers = (value.producer() for value in node.inputs if value is not None)
            made_by = [modules[maker] for maker in makers if maker is not None]
            modules[node] = next(filter(None, [modules[node], *made_by]), "")
    return modules


def _stated(node: ir.Node) -> str:
    scopes = node.metadata_props.get(_SCOPES, "[]")
    paths: list[str] = ast.literal_eval(scopes)  # from the outermost module to the operation
    path = paths[-2] if len(paths) > 1 else ""
    return path.removeprefix(f"{_WRAPPER}.") if path.startswith(f"{_WRAPPER}.") else ""


def _name_sizes(graph: ir.Graph, signature: Signature) -> None:
    """The signature's letters instead of the tracer's symbols, in all shapes."""
    letters: dict[str, str] = {}
    for value, fact in zip(graph.inputs, signature.inputs, strict=True):
        assert value.shape is not None
        for size, letter in zip(value.shape, fact["shape"], strict=True):
            if isinstance(size, ir.SymbolicDim):
                letters.setdefault(str(size.value), letter)
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(size, letters) for size in value.shape])
    for value, fact in zip(graph.outputs, signature.outputs, strict=True):
        value.shape = ir.Shape(fact["shape"])


def _renamed(size: int | ir.SymbolicDim, letters: dict[str, str]) -> int | str | None:
    if isinstance(size, int) or size.value is None:
        return size if isinstance(size, int) else None
    return re.sub(r"\w+", lambda match: letters.get(match[0], match[0]), str(size.value))


def _set_defaults(graph: ir.Graph, signature: Signature) -> None:
    """An input that is an initialiser too may be left out."""
    for value in graph.inputs:
        if value.name in signature.defaults:
            default = np.array(signature.defaults[value.name], np.int64)
            value.const_value = ir.tensor(default, name=value.name)
            graph.register_initializer(value)

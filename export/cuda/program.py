"""A captured graph on a GPU that is not there: its tensors become fake ones of that device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

GPU = torch.device("cuda", 0)


def on_gpu(program: ExportedProgram) -> tuple[GraphModule, tuple[Any, ...]]:
    """The program's module and example inputs, as for `aot_compile`, all on the GPU.

    Tensors have shapes but no values, which generated code does not need: weights are bound when it
    is loaded. The program itself stays as it is.
    """
    assert program.example_inputs is not None
    module: Any = program.module(check_guards=False)
    mode = _mode(module)
    moved: dict[int, Tensor] = {}  # by identity: tied weights stay tied

    def move(value: Any) -> Any:
        if isinstance(value, torch.device):
            return GPU
        if not isinstance(value, Tensor):
            return value
        if id(value) not in moved:
            with mode:
                shape, stride = value.shape, value.stride()
                moved[id(value)] = torch.empty_strided(shape, stride, dtype=value.dtype, device=GPU)
        return moved[id(value)]

    for part in module.modules():
        if isinstance(part, GraphModule):
            _numbers_inline(part)
            for node in part.graph.nodes:
                _move_node(node, move)
            part.recompile()
    for part in module.modules():
        _move_weights(part, move)
    return module, tree_map(move, program.example_inputs[0])


def _mode(module: GraphModule) -> FakeTensorMode:
    """The fake mode that the graph was traced in, whose symbols its shapes are made of."""
    values = (node.meta.get("val") for node in module.graph.nodes)
    found = next((value for value in values if isinstance(value, FakeTensor)), None)
    return FakeTensorMode() if found is None else found.fake_mode


def _numbers_inline(module: GraphModule) -> None:
    """A tensor of no dimensions becomes its value, which a fake one has not."""
    for node in list(module.graph.find_nodes(op="get_attr")):
        value = _attribute(module, node.target)
        if isinstance(value, Tensor) and value.dim() == 0:
            with module.graph.inserting_before(node):
                full = module.graph.call_function(
                    torch.ops.aten.full.default,
                    ([], value.item()),
                    {"dtype": value.dtype, "device": value.device, "pin_memory": False},
                )
            full.meta = dict(node.meta)
            node.replace_all_uses_with(full)
            module.graph.erase_node(node)


def _attribute(module: nn.Module, path: Any) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _move_node(node: Node, move: Any) -> None:
    node.meta = dict(node.meta)
    if "val" in node.meta:
        node.meta["val"] = tree_map(move, node.meta["val"])
    node.args, node.kwargs = tree_map(move, node.args), tree_map(move, node.kwargs)


def _move_weights(module: nn.Module, move: Any) -> None:
    for name, parameter in list(module._parameters.items()):
        if parameter is not None:
            del module._parameters[name]
            module.register_buffer(name, move(parameter))
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = move(buffer)

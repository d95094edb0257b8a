"""Any nn.Module as a package: traced with its own signature, its linears and attention on our ops.

>>> from ingot.export import export_module
>>> batch = torch.export.Dim("batch", min=1, max=64)
>>> export_module(module, (x,), Path("model.pt2"), dynamic_shapes=({0: batch},))
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode

from ..custom_ops.linear import pack_linear
from .contracts import Contract, capture
from .errors import ExportError
from .op_library import OpLibrary, own_shims

_MOST = 1 << 40
_CHECKED = re.compile(r"(\d+\*)?[A-Za-z_]\w*([+-]\d+)?")
_MAX_HEAD_DIM = 256


def contract_of(
    module: nn.Module,
    args: Sequence[object],
    dynamic_shapes: Any,
    name: str,
    library: OpLibrary | None = None,
) -> Contract:
    """The contract of a module by tracing it; the module itself is not changed.

    Raises ExportError if it cannot be traced, or takes or gives what is no tensor.
    """
    rewritten = rewrite_linears(copy.deepcopy(module)).eval()
    traced = Contract(rewritten, tuple(args), dynamic_shapes, [], [], "", {})
    with _Attention():
        program = capture(traced)
    _refuse_mutation(program)
    letters, symbols = _symbols(program, dynamic_shapes)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Contract(
        program.module(check_guards=False),
        tuple(args),
        dynamic_shapes,
        _inputs(program, letters),
        _outputs(program, letters),
        identity=hashlib.sha256(str(program).encode()).hexdigest(),
        card={
            "architecture": type(module).__name__,
            "kind": "module",
            "name": name,
            "parameters": parameters,
            "dtype": "float32",
        },
        symbols=symbols,
        sections={"tokenizer": False},
        program=program,
        op_library=library,
        own_shims=own_shims(program, library),
    )


class _Linear(nn.Module):
    """An nn.Linear on our op, for x of any number of dimensions."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features = linear.out_features
        self.weight = nn.Parameter(pack_linear(linear.weight.detach()), requires_grad=False)
        self.bias = None
        if linear.bias is not None:
            self.bias = nn.Parameter(linear.bias.detach().float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out: Tensor = torch.ops.ingot.linear(rows, self.weight, self.bias, self.out_features)
        return out.view(*x.shape[:-1], self.out_features)


def rewrite_linears(module: nn.Module) -> nn.Module:
    """Put our op where an nn.Linear of float32 is, in place. Tied and parametrised ones stay."""
    seen: dict[int, int] = {}
    for parameter in (p for m in module.modules() for p in m._parameters.values()):
        seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if (
                type(child) is nn.Linear
                and child.weight.dtype == torch.float32
                and seen[id(child.weight)] == 1
            ):
                setattr(parent, name, _Linear(child))
    return module


class _Attention(TorchFunctionMode):
    """While it is open, bidirectional self-attention without a mask goes to our op."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            bound = _SDPA.bind(*args, **kwargs)
            bound.apply_defaults()
            if _fits(**bound.arguments):
                query, key, value, *_, scale, _ = bound.arguments.values()
                return _attention(query, key, value, scale)
        return function(*args, **kwargs)


def _fits(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    """Whether the op computes this call: float32 [B, H, L, D] that attends to itself."""
    plain = attn_mask is None and dropout_p == 0 and not is_causal and not enable_gqa
    if not plain or query.dim() != 4 or query.dtype != torch.float32:
        return False
    same = all(
        statically_known_true(a == b)
        for other in (key, value)
        for a, b in zip(query.shape, other.shape, strict=True)
    )
    return same and isinstance(query.shape[-1], int) and query.shape[-1] <= _MAX_HEAD_DIM


_SDPA = inspect.signature(_fits)


def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    batch, heads, length, size = query.shape
    ragged = (x.transpose(1, 2).reshape(batch * length, heads, size) for x in (query, key, value))
    starts = torch.arange(batch + 1, device=query.device) * length
    out = torch.ops.ingot.attention(*ragged, starts, size**-0.5 if scale is None else scale)
    result: Tensor = out.view(batch, length, heads, size).transpose(1, 2)
    return result


def _symbols(
    program: ExportedProgram, dynamic_shapes: Any
) -> tuple[dict[Any, str], dict[str, tuple[int, int]]]:
    """The names of the sizes that vary, by the tracer's symbol, and their bounds by name."""
    letters = {symbol: str(symbol) for symbol in program.range_constraints if symbol.is_Symbol}
    specs, _ = pytree.tree_flatten(dynamic_shapes, is_leaf=_is_leaf)
    for value, spec in zip(_user_values(program).values(), specs, strict=False):
        for dim, given in spec.items() if isinstance(spec, dict) else ():
            size = value.shape[dim]
            if isinstance(given, Dim) and not isinstance(size, int) and size.node.expr.is_Symbol:
                letters[size.node.expr] = given.__name__
    bounds = {}
    for symbol, letter in letters.items():
        found = program.range_constraints[symbol]
        bounds[letter] = (max(int(found.lower), 0), int(min(found.upper, _MOST)))
    return letters, bounds


def _is_leaf(spec: Any) -> bool:
    """One tensor's sizes: {dimension: size}, or None."""
    return spec is None or (isinstance(spec, dict) and all(isinstance(k, int) for k in spec))


def _user_values(program: ExportedProgram) -> dict[str, Any]:
    """The inputs by name, as the tracer saw them. Raises ExportError for one that is no tensor."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            value = values.get(spec.arg.name)
            if not isinstance(value, Tensor):
                raise ExportError(f"input '{spec.arg.name}' is no tensor; only tensors go in")
            found[spec.arg.name] = value
    return found


def _inputs(program: ExportedProgram, letters: dict[Any, str]) -> list[dict[str, Any]]:
    """As the manifest states them. Raises ExportError for sizes that the runtime cannot check."""
    facts = [_fact(name, value, letters) for name, value in _user_values(program).items()]
    for fact in facts:
        for size in fact["shape"]:
            if isinstance(size, str) and not _CHECKED.fullmatch(size):
                raise ExportError(
                    f"input '{fact['name']}' has the size {size}; the runtime checks sizes of the"
                    " form a*n+b, so give it a size of its own"
                )
    return facts


def _outputs(program: ExportedProgram, letters: dict[Any, str]) -> list[dict[str, Any]]:
    (node,) = (node for node in program.graph.nodes if node.op == "output")
    facts: list[dict[str, Any]] = []
    for value in node.args[0]:
        name = "output" if len(node.args[0]) == 1 else f"output{len(facts)}"
        facts.append(_fact(name, getattr(value, "meta", {}).get("val"), letters))
    return facts


def _refuse_mutation(program: ExportedProgram) -> None:
    """Weights are mapped read-only, inputs are the caller's. Raises ExportError."""
    targets = (node.target for node in program.graph.nodes if node.op == "call_function")
    schemas = (t._schema for t in targets if isinstance(t, torch._ops.OpOverload))
    if not any(schema.is_mutable for schema in schemas):
        return
    for spec in program.run_decompositions({}).graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            what = spec.kind.name.lower().replace("_", " ")
            raise ExportError(
                f"the module changes '{spec.target}' ({what}); a package is immutable: return the"
                " new value instead"
            )


def _fact(name: str, value: Any, letters: dict[Any, str]) -> dict[str, Any]:
    if not isinstance(value, Tensor):
        raise ExportError(f"'{name}' is {value!r}, not a tensor; only tensors go in and out")
    dtype = str(value.dtype).removeprefix("torch.")
    return {"name": name, "dtype": dtype, "shape": [_size(s, letters) for s in value.shape]}


def _size(size: Any, letters: dict[Any, str]) -> str | int:
    """An int, or "multiple*letter+offset", which is what the runtime checks."""
    if isinstance(size, int):
        return size
    expression = sympy.expand(size.node.expr)
    free = list(expression.free_symbols)
    if len(free) == 1 and free[0] in letters:
        multiple, offset = expression.coeff(free[0], 1), expression.coeff(free[0], 0)
        if sympy.expand(multiple * free[0] + offset) == expression and int(multiple) >= 1:
            times = "" if multiple == 1 else f"{multiple}*"
            plus = "" if offset == 0 else f"{int(offset):+d}"
            return f"{times}{letters[free[0]]}{plus}"
    return str(expression).replace(" ", "")

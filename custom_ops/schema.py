"""Parses an op's schema string, the one declaration from which both sides of the C ABI derive.

The grammar is the part of PyTorch's (`torch/csrc/jit/frontend/function_schema_parser.cpp`) that our
ops use:

    name(Type arg, ..., Type arg) -> Tensor | (Tensor, ...) | ()

with the types of `TYPES`. Standard library only: `csrc/generate.py` uses it at build time, when
there is no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple


class CTypes(NamedTuple):
    """How a schema type is spelled in C: in libingot_ops' own ABI and in AOTInductor's shims."""

    op: str
    shim: str


TYPES = {
    "Tensor": CTypes("const DLTensor*", "AtenTensorHandle"),
    "Tensor!": CTypes("DLTensor*", "AtenTensorHandle"),
    "Tensor?": CTypes("const DLTensor*", "AtenTensorHandle*"),
    "int": CTypes("int64_t", "int64_t"),
    "int?": CTypes("const int64_t*", "int64_t*"),
    "float": CTypes("double", "double"),
    "float?": CTypes("const double*", "double*"),
    "bool": CTypes("int32_t", "int32_t"),
    "str": CTypes("const char*", "const char*"),
}
_ALIAS = re.compile(r"Tensor\([a-z]!\)")
_SCHEMA = re.compile(r"(?P<name>[a-z]\w*)\((?P<arguments>.*)\) -> (?P<returns>Tensor|\([^()]*\))")


@dataclass(frozen=True)
class Argument:
    """One argument; `type` is a key of `TYPES`, where `Tensor!` is a tensor that the op mutates."""

    name: str
    type: str

    @property
    def mutated(self) -> bool:
        return self.type == "Tensor!"


@dataclass(frozen=True)
class Schema:
    """A parsed schema; `text` is the string itself, `outputs` the number of tensors returned."""

    text: str
    name: str
    arguments: tuple[Argument, ...]
    outputs: int


def parse(text: str) -> Schema:
    """Parses `text`. Raises ValueError naming the part that is not understood."""
    match = _SCHEMA.fullmatch(text)
    if match is None:
        raise ValueError(f"not an op schema: {text!r}; write 'name(Type arg, ...) -> Tensor'")
    arguments = tuple(_argument(part, text) for part in _split(match["arguments"]))
    returns = match["returns"]
    outputs = [returns] if returns == "Tensor" else _split(returns[1:-1])
    if any(output != "Tensor" for output in outputs):
        raise ValueError(f"an op returns new tensors only: {text!r}")
    return Schema(text, match["name"], arguments, len(outputs))


def _argument(part: str, text: str) -> Argument:
    kind, _, name = part.partition(" ")
    kind = _ALIAS.sub("Tensor!", kind)
    if kind not in TYPES or not name.isidentifier():
        known = ", ".join(TYPES).replace("Tensor!", "Tensor(a!)")
        raise ValueError(f"argument {part!r} of {text!r}: write 'Type name', Type one of {known}")
    return Argument(name, kind)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def op_parameters(schema: Schema) -> list[str]:
    """The parameters of `ingot_op_<name>`, "type name" each; outputs trail as `DLTensor*`."""
    inputs = [f"{TYPES[a.type].op} {a.name}" for a in schema.arguments]
    return inputs + [f"DLTensor* out{i}" for i in range(schema.outputs)]


def shim_name(schema: Schema, device: str = "cpu") -> str:
    """The C function that AOTInductor's generated code calls; it drops the op's namespace."""
    return f"aoti_torch_{device}_{schema.name}"


def shim_parameters(schema: Schema) -> list[str]:
    """The shim's parameters, "type name" each; every output is a trailing handle to fill.

    An op that returns nothing has one trailing pointer too: AOTInductor passes it, always null.
    """
    inputs = [f"{TYPES[a.type].shim} {a.name}" for a in schema.arguments]
    return inputs + [f"AtenTensorHandle* ret{i}" for i in range(max(1, schema.outputs))]


def shim_declaration(schema: Schema, device: str = "cpu") -> str:
    """The C declaration for `torch._inductor.config.aot_inductor.custom_ops_to_c_shims`."""
    return f"AOTITorchError {shim_name(schema, device)}({', '.join(shim_parameters(schema))})"

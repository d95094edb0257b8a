"""The roofline: how long a call takes at least on a machine, and what keeps it from being faster.

    seconds = max(bytes / bandwidth, flops / rate) + the cost of any call

after Williams et al. 2009 (doi:10.1145/1498765.1498785); for transformers, kipply's "Transformer
Inference Arithmetic" (https://kipp.ly/transformer-inference-arithmetic) and the survey of LLM
inference by Yuan et al. (arXiv:2402.16363). Machines are data: `hardware/*.json`, or a user's file
in that form. Bandwidth and rate are the machine's, or where they were measured the kernel's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import json_text
from .calls import Call, Cost, own_name
from .errors import ProfileError

Bound = Literal["memory", "compute"]
GENERATED = "generated"  # kernels that are no op's
FACTORS = ("float32", "bfloat16", "int8")  # what kernels multiply
_FOLDER = Path(__file__).parent / "hardware"
QUANTISED_LINEARS = ("linear_w4", "linear_w8", "linear_w4_activated", "linear_w8_activated")
_GROUP_SIZES = (128, 64, 32)
PANEL = 64  # rows of a weight's panel, of which a block has a group of columns (docs/format.md)


@dataclass(frozen=True)
class Speed:
    """gb_s: where bytes set the pace; gflop_s: where arithmetic does. In 1e9 a second."""

    gb_s: float
    gflop_s: float


@dataclass(frozen=True)
class Hardware:
    """memory_gb, read_gb_s in 1e9 bytes. gflop_s: peak rates by the dtype that is multiplied,
    "float32" at least, "bfloat16", "int8"; a multiplication and an addition are two. kernels: what
    `kernel_name`s were measured to reach. call_us: what any call costs beside its work.
    """

    name: str
    memory_gb: float
    read_gb_s: float
    gflop_s: Mapping[str, float]
    call_us: float = 0.0
    kernels: Mapping[str, Speed] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def speed(self, kernel: str) -> Speed:
        """A kernel's own speed, or the machine's for what it multiplies."""
        if kernel in self.kernels:
            return self.kernels[kernel]
        rates = self.gflop_s
        return Speed(self.read_gb_s, rates.get(_multiplied(kernel), rates["float32"]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Prediction:
    """bound: which of the two a machine of this bandwidth would wait for; a kernel that is bound by
    memory may still be slower than it."""

    seconds: float
    bound: Bound


def predict(cost: Cost, hardware: Hardware, kernel: str = GENERATED) -> Prediction:
    """Of one call of the kernel that `kernel_name` names."""
    speed = hardware.speed(kernel)
    moved = (cost.read_bytes + cost.written_bytes) / 1e9
    computing = cost.flops / (speed.gflop_s * 1e9)
    bound: Bound = "compute" if computing > moved / hardware.read_gb_s else "memory"
    return Prediction(max(moved / speed.gb_s, computing) + hardware.call_us * 1e-6, bound)


def intensity(cost: Cost) -> float:
    """Arithmetic intensity: operations a byte."""
    moved = cost.read_bytes + cost.written_bytes
    return cost.flops / moved if moved else 0.0


def kernel_name(call: Call, activation_bits: int = 16, kv_dtype: str = "float32") -> str:
    """Which kernel's speed a call has: its op and what decides how it multiplies.

    "linear.bfloat16"; "linear_many.float32"; "linear_w4.g32.a8": blocks of 32 columns, x in 8 bits;
    "linear_activated.bfloat16", "linear_w4_activated.g32.a8": likewise;
    "paged_attention.int8": a cache of that; "attention.float32", or bfloat16 for attention_bf16;
    "generated" for all else.
    activation_bits, kv_dtype: what tensors' shapes and dtypes do not say.
    """
    op = op_name(call)
    if op.removesuffix("_activated") in ("linear", "linear_many"):
        return f"{op}.{call.inputs[1]['dtype']}"
    if op in QUANTISED_LINEARS:
        return f"{op}.g{group_size(call)}.a{activation_bits}"
    if op == "paged_attention":
        return f"{op}.{kv_dtype}"
    attentions = {"attention": "attention.float32", "attention_bf16": "attention.bfloat16"}
    return attentions.get(op, GENERATED)


def group_size(call: Call) -> int:
    """Of a quantised linear's weight, whose block has the codes of a group for each of 64 rows, and
    beside them less than half as many bytes."""
    bits = int(op_name(call).removesuffix("_activated")[-1])
    codes = int(call.inputs[1]["shape"][2]) * 8 // bits
    return next((size for size in _GROUP_SIZES if PANEL * size <= codes), 0)


def op_name(call: Call) -> str:
    """The op's own name, "linear", of a call named as generated code names it."""
    return own_name(call.name)


def _multiplied(kernel: str) -> str:
    """The dtype that a machine without integer or mixed kernels of its own would multiply."""
    if kernel.endswith(".a8"):
        return "int8"
    return "float32" if kernel == GENERATED or kernel.endswith(".float32") else "bfloat16"


def known_hardware() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def read_hardware(name: str) -> Hardware:
    """One of `known_hardware`, or a user's JSON file. Raises ProfileError."""
    if name in known_hardware():
        path = _FOLDER / f"{name}.json"
    elif name.endswith(".json"):
        path = Path(name)
    else:
        known = ", ".join([*known_hardware(), "cpu"])
        raise ProfileError(f"no hardware '{name}'; name one of {known}, or a .json file")
    try:
        return from_dict(json_text.read(path), str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, ProfileError):
            raise
        raise ProfileError(f"{path} cannot be read as hardware ({error})") from error


def from_dict(values: Any, where: str) -> Hardware:
    """Hardware from a file's JSON. Raises ProfileError, naming the field that cannot be."""
    if not isinstance(values, dict):
        raise ProfileError(f"{where} is no hardware: it is not a JSON object")
    known = set(Hardware.__dataclass_fields__)
    if unknown := values.keys() - known:
        fields = ", ".join(sorted(known))
        raise ProfileError(f"{where}: field '{min(unknown)}' is not known; known are {fields}")
    rates, kernels = values.get("gflop_s"), values.get("kernels", {})
    if not isinstance(rates, dict) or "float32" not in rates:
        raise ProfileError(f'{where}: gflop_s must be rates by dtype, {{"float32": ...}} at least')
    if not isinstance(kernels, dict):
        raise ProfileError(f"{where}: kernels must be an object of speeds by kernel")
    sources = values.get("sources", [])
    if not isinstance(sources, list | tuple):
        raise ProfileError(f"{where}: sources must be a list of texts")
    return Hardware(
        name=str(values.get("name", Path(where).stem)),
        memory_gb=_positive(values, "memory_gb", where),
        read_gb_s=_positive(values, "read_gb_s", where),
        gflop_s={dtype: _positive(rates, dtype, f"{where}: gflop_s") for dtype in rates},
        call_us=_positive(values, "call_us", where) if values.get("call_us") else 0.0,
        kernels={
            name: Speed(
                *(_positive(speed, part, f"{where}: {name}") for part in Speed.__annotations__)
            )
            for name, speed in kernels.items()
        },
        sources=tuple(map(str, sources)),
    )


def _positive(values: Any, name: str, where: str) -> float:
    number = values.get(name) if isinstance(values, dict) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise ProfileError(f"{where}: {name} is {number!r}; it must be a positive number")
    return float(number)

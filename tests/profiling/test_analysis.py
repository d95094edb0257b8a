"""Sizes of the steps, sums over calls and rows of a table, on calls written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ingot.profiling.analysis import Request, Subject, analyze, grouped, phases, request_of
from ingot.profiling.calls import Call
from ingot.profiling.errors import ProfileError
from ingot.profiling.roofline import Hardware

MACHINE = Hardware("toy", memory_gb=0.001, read_gb_s=1, gflop_s={"float32": 10}, call_us=1)
X_W = ({"dtype": "float32", "shape": ["T", 8]}, {"dtype": "float32", "shape": [1, 8, 64]})
CALLS = [
    Call("embedding", "op", "embed", read_bytes="8*T"),
    *(
        call
        for layer in range(3)
        for call in (
            Call(
                "linear",
                "op",
                f"layers.{layer}.mlp.up",
                inputs=X_W,
                flops="2e6*T",
                read_bytes="1e6",
            ),
            Call("fused", "kernel", f"layers.{layer}.norm", flops="T", read_bytes="4*T"),
        )
    ),
    Call("linear", "op", "head", inputs=X_W, flops="1e6*R", read_bytes="5e5", written_bytes="4*R"),
]


def toy(kind: str = "decoder", **changes: Any) -> Subject:
    return Subject(
        **{
            "source": "toy",
            "model": {"kind": kind, "parameters": 10},
            "weight_bytes": 800_000,
            "module_bytes": {"layers.0.mlp.up": 200_000, "layers.1.mlp.up": 200_000},
            "max_tokens": 1000,
            "calls": lambda sizes: CALLS,
            "temporary_bytes": lambda sizes: int(10 * sizes["T"]),
            "cache": {"dtype": "float32", "bytes_per_block": 1000, "num_layers": 3},
            **changes,
        }
    )


def test_steps_of_a_decoder() -> None:
    found = phases("decoder", Request(batch=2, prompt=40, context=100, step_tokens=32))
    first = {"T": 32, "B": 1, "P": 3, "R": 1, "context": 32, "pairs": 32 * 33 / 2}
    rest = {"T": 8, "B": 1, "P": 3, "R": 1, "context": 40, "pairs": sum(range(33, 41))}
    assert found["prefill"] == [first, rest, first, rest]
    one = {"T": 2, "B": 2, "P": 7, "R": 2, "context": 200, "pairs": 200}
    assert found["decode"] == [one]


def test_steps_of_an_encoder() -> None:
    found = phases("encoder", Request(batch=3, prompt=10, context=10))
    assert found == {"forward": [{"B": 3, "T": 30, "context": 30, "pairs": 300}]}


def test_times_are_sums_of_calls() -> None:
    """Prefill of 100 tokens: the layers' 2e8 FLOP take 20 ms each; decode waits for their bytes."""
    result = analyze(toy(), Request(1, 100, 50), MACHINE)
    prefill, decode = result["phases"]["prefill"], result["phases"]["decode"]
    calls = 8 * 1e-6
    embedding, norms, head = 800e-9, 3 * 400e-9, 500_004e-9
    assert prefill["seconds"] == pytest.approx(3 * 0.02 + calls + embedding + norms + head)
    assert prefill["bound"] == "compute"
    assert prefill["flops"] == 3 * 2e8 + 300 + 1e6
    assert prefill["tokens_per_s"] == pytest.approx(100 / prefill["seconds"])
    assert decode["seconds"] == pytest.approx(3 * 1e-3 + calls + 8e-9 + 12e-9 + head)
    assert decode["bound"] == "memory"
    assert decode["intensity"] == pytest.approx(7e6 / 3.5e6, rel=1e-4)
    up = result["modules"][1]
    assert up["module"] == "layers.0.mlp.up"
    assert up["prefill"]["bound"] == "compute"
    assert up["decode"]["bound"] == "memory"
    assert sum(m["decode"]["seconds"] for m in result["modules"]) == pytest.approx(
        decode["seconds"]
    )


def test_memory() -> None:
    """Weights, the blocks of the longest sequences, the largest step's temporaries."""
    result = analyze(toy(), Request(2, 40, 33), MACHINE)
    assert result["memory"] == {
        "weight_bytes": 800_000,
        "kv_bytes": 2 * 3 * 3 * 1000,
        "temporary_bytes": 400,
        "total_bytes": 818_400,
        "hardware_bytes": 1e6,
        "fits": True,
    }
    assert not analyze(toy(), Request(50, 40, 33), MACHINE)["memory"]["fits"]
    unknown = analyze(toy(temporary_bytes=lambda _: None), Request(1, 1, 1), MACHINE)
    assert unknown["memory"]["temporary_bytes"] is None


def test_rows_of_layers_are_one() -> None:
    rows = grouped(analyze(toy(), Request(1, 100, 50), MACHINE))
    assert [(row.module, len(row.members), row.is_layer) for row in rows] == [
        ("embed", 1, False),
        ("layers.*", 3, True),
        ("layers.*.mlp.up", 3, False),
        ("layers.*.norm", 3, False),
        ("head", 1, False),
    ]
    whole, *parts = rows[1:4]
    assert whole.weight_bytes == 400_000
    for phase in ("prefill", "decode"):
        assert whole.phases[phase].cost.flops == sum(
            part.phases[phase].cost.flops for part in parts
        )
    assert whole.phases["prefill"].to_dict()["bound"] == "compute"


@pytest.mark.parametrize(
    ("kind", "asked", "sentence"),
    [
        ("decoder", {"context": 1001}, "--context is 1001, but toy takes 1 to 1000 tokens"),
        ("decoder", {"prompt": 0}, "--prompt is 0"),
        ("decoder", {"batch": 0}, "--batch is 0; it must be at least 1"),
        ("decoder", {"step_tokens": -3}, "--step-tokens is -3"),
        ("encoder", {"context": 3}, "is an encoder and has no cache; leave --context out"),
        ("image-classifier", {"prompt": 3}, "reads images; it has no --prompt"),
    ],
)
def test_requests_that_cannot_be(kind: str, asked: dict[str, int], sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        request_of(toy(kind), **asked)


def test_defaults_of_requests() -> None:
    assert request_of(toy(max_tokens=100)) == Request(1, 100, 100)
    assert request_of(toy(), prompt=20) == Request(1, 20, 20)
    assert request_of(toy("image-classifier", max_tokens=197)) == Request(1, 197, 197)

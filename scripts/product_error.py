"""The error of one quantised product, by layout and bits of x: a table of docs/quantisation.md.

    python scripts/product_error.py [--outputs 5632] [--inputs 2048] [--rows 8]

The op of this CPU's best level (INGOT_ISA forces another) against the same weight's dequantised
codes times x in float64: the root mean square of the difference over that of the product. So the
error is that of rounding x and of summing; what rounding the weight costs, scripts/quality.py says.
"""

from __future__ import annotations

import click
import torch

import ingot.custom_ops  # noqa: F401  (registers the ops)
from ingot.custom_ops.quantised_layout import Layout, dequantise
from ingot.custom_ops.quantised_linear import random_weight

LAYOUTS = {
    "4 bits, groups of 32": Layout(4, 128, torch.float16, zero_points=False, multipliers=True),
    "4 bits, groups of 32, each with a float16": Layout(4, 32, torch.float16, zero_points=False),
    "4 bits, groups of 128": Layout(4, 128, torch.float16, zero_points=False),
    "8 bits, groups of 128": Layout(8, 128, torch.float16, zero_points=False),
}
ACTIVATION_BITS = (8, 16, 32)


def error(
    x: torch.Tensor, weight: torch.Tensor, layout: Layout, outputs: int, activation_bits: int
) -> float:
    """Of x [rows, inputs] times `weight`, packed, of [outputs, inputs]: relative, a share."""
    op = getattr(torch.ops.ingot, f"linear_w{layout.bits}")
    got = op(x, weight, None, None, None, outputs, activation_bits).double()
    plain = dequantise(weight, layout.bits, outputs, x.shape[1]).double()
    exact = x.double() @ plain.T
    return float((got - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@click.command()
@click.option("--outputs", default=5632, show_default=True)
@click.option("--inputs", default=2048, show_default=True)
@click.option("--rows", default=8, show_default=True, help="Of x, standard normal.")
def main(outputs: int, inputs: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator)
    click.echo("| weights | " + " | ".join(f"{bits}-bit x" for bits in ACTIVATION_BITS) + " |")
    click.echo("|---" * (1 + len(ACTIVATION_BITS)) + "|")
    for name, layout in LAYOUTS.items():
        weight = random_weight(outputs, inputs, layout, generator)
        errors = [error(x, weight, layout, outputs, bits) for bits in ACTIVATION_BITS]
        click.echo(f"| {name} | " + " | ".join(f"{e:.1e}" for e in errors) + " |")


if __name__ == "__main__":
    main()

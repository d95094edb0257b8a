"""erf of generated code, at each level that has vectors: export/include/ingot/erf.h."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ingot.export import export_module, torch_versions
from ingot.export.isa import LEVELS, machine_level

LEVEL_NAMES = [level.name for level in LEVELS if level.vector_bits and level <= machine_level()]
RUN = """
import sys
import numpy as np
import ingot
(out,) = ingot.load(sys.argv[1]).run(x=np.load(sys.argv[2])).values()
np.save(sys.argv[3], out)
"""


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


def erf(x: np.ndarray, name: str, folder: Path) -> np.ndarray:
    package, given, out = (folder / f"{name}{end}" for end in (".pt2", ".x.npy", ".npy"))
    count = torch.export.Dim("n", min=1, max=1 << 20)
    shapes = ({0: count},)
    export_module(Erf(), (torch.zeros(40),), package, dynamic_shapes=shapes, name="erf", isa=name)
    np.save(given, x)
    command = [sys.executable, "-c", RUN, str(package), str(given), str(out)]
    subprocess.run(command, env={**os.environ, "INGOT_ISA": name}, check=True)
    return np.load(out)


@pytest.mark.skipif(
    not torch_versions.can_target(), reason="this torch builds for the machine's level alone"
)
@pytest.mark.parametrize("name", LEVEL_NAMES)
def test_erf_is_within_two_ulp(name: str, tmp_path: Path) -> None:
    small = np.logspace(-40, 0, 20_000)
    line = np.linspace(0, 5, 200_001)
    x = np.concatenate([small, line, -small, -line]).astype(np.float32)
    exact = np.array([math.erf(value) for value in x.tolist()])
    unit = np.spacing(np.abs(exact).astype(np.float32))
    assert np.max(np.abs(erf(x, name, tmp_path) - exact) / unit) <= 2


@pytest.mark.skipif(
    not torch_versions.can_target(), reason="this torch builds for the machine's level alone"
)
@pytest.mark.parametrize("name", LEVEL_NAMES)
def test_erf_of_what_is_no_number(name: str, tmp_path: Path) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 1e30, -1e30] * 7, np.float32)
    out = erf(x, name, tmp_path)
    np.testing.assert_array_equal(out, np.array([1, -1, np.nan, 0, -0.0, 1, -1] * 7, np.float32))
    np.testing.assert_array_equal(np.signbit(out[4::7]), True)

"""What code is generated for: x86-64 levels, or GPU architectures; a package may have several."""

from __future__ import annotations

from .cuda.architecture import Architecture, find_architectures
from .errors import ExportError
from .isa import IsaLevel, find_levels

Target = IsaLevel | Architecture


def find_targets(
    device: str = "cpu", isa: str | None = None, cuda_arch: str | None = None
) -> tuple[Target, ...]:
    """The levels or architectures of a list of names, highest first; for None the machine's own.

    device: "cpu" or "cuda". Raises ExportError for names that are unknown or cannot be built for
    here, and for options of the other device.
    """
    if device == "cpu" and cuda_arch is not None:
        raise ExportError("--cuda-arch is for GPUs; give --device cuda too")
    if device == "cuda" and isa is not None:
        raise ExportError("--isa is for CPUs; with --device cuda name GPUs by --cuda-arch")
    return find_levels(isa) if device == "cpu" else find_architectures(cuda_arch)

"""GPU architectures to build for: named, or the machine's own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import ClassVar

from .. import torch_versions
from ..errors import ExportError


@dataclass(frozen=True)
class Architecture:
    """What code is generated for, and what Inductor asks of a device to choose its kernels by.

    The numbers are of the architecture's usual GPU (CUDA C++ Programming Guide, "Compute
    Capabilities"); code runs on every GPU of the same major capability that is not older.
    """

    device: ClassVar[str] = "cuda"
    capability: tuple[int, int]
    multiprocessors: int
    threads: int  # of a multiprocessor
    shared_bytes: int  # of a block, where it asks for more than 48 KiB

    @property
    def name(self) -> str:
        """As the manifest has it: "sm_90"."""
        return "sm_{}{}".format(*self.capability)

    @property
    def facts(self) -> dict[str, str]:
        """The manifest's, of a variant for this target."""
        return {"gpu_architecture": self.name}

    @property
    def toolchain(self) -> dict[str, str]:
        """What compiles for it, beside torch and the C++ compiler, and its version."""
        return {"triton": version("triton")}


# libingot_ops_cuda has kernels for 8.0, which run on 8.6 and 8.9, and for 9.0.
ARCHITECTURES = (
    Architecture((8, 0), 108, 2048, 163 << 10),  # A100
    Architecture((8, 6), 84, 1536, 99 << 10),  # A40
    Architecture((8, 9), 142, 1536, 99 << 10),  # L40
    Architecture((9, 0), 132, 2048, 227 << 10),  # H100
)


def find_architectures(names: str | None) -> tuple[Architecture, ...]:
    """Those of a list such as "80,90", highest first; for None that of the machine's GPU.

    Raises ExportError for a name that is unknown, where there is no GPU to take the name from,
    where there is no triton to compile with, and for an older torch.
    """
    torch_versions.check_gpus()
    found = {_find(name.strip()) for name in names.split(",")} if names else {_own()}
    if find_spec("triton") is None:
        raise ExportError(
            "export for CUDA needs triton, which compiles kernels; pip install"
            f" triton=={torch_versions.triton()}"
        )
    return tuple(sorted(found, key=lambda architecture: architecture.capability, reverse=True))


def _find(name: str) -> Architecture:
    for architecture in ARCHITECTURES:
        if architecture.name.removeprefix("sm_") == name.removeprefix("sm_"):
            return architecture
    raise ExportError(
        f"unknown GPU architecture '{name}'; choose among {_known()}, with commas between"
    )


def _own() -> Architecture:
    """The newest that the machine's GPU runs code of."""
    import torch

    if not torch.cuda.is_available():
        raise ExportError(
            f"no GPU here whose architecture could be taken; name those to build for, among"
            f" {_known()}: --cuda-arch 80,90"
        )
    major, minor = torch.cuda.get_device_capability()
    fitting = [a for a in ARCHITECTURES if a.capability[0] == major and a.capability[1] <= minor]
    if not fitting:
        raise ExportError(
            f"this machine's GPU, of compute capability {major}.{minor}, runs no code that can be"
            f" exported; name the architectures to build for, among {_known()}: --cuda-arch 80,90"
        )
    return fitting[-1]


def _known() -> str:
    return ", ".join(a.name.removeprefix("sm_") for a in ARCHITECTURES)

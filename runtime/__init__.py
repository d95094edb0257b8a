"""The runtime's Python face. Needs neither torch nor a compiler.

>>> package = ingot.load("model.pt2")
>>> with package.session() as session:
...     for piece in session.generate("def f(", max_new_tokens=32):
...         print(piece, end="")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, overload

from .base import BasePackage
from .base_session import Piece
from .errors import BadInput, BadPackage, IngotError, NoSpace
from .package import Package, read_manifest
from .session import Session

if TYPE_CHECKING:
    from .torch_backend import TorchPackage

__all__ = [
    "BasePackage",
    "BadInput",
    "BadPackage",
    "IngotError",
    "NoSpace",
    "Package",
    "Piece",
    "Session",
    "load",
    "read_manifest",
]

Path = str | os.PathLike[str]


@overload
def load(path: Path, *, backend: Literal["lean"] = "lean", **options: Any) -> BasePackage: ...
@overload
def load(path: Path, *, backend: Literal["torch"]) -> TorchPackage: ...
def load(path: Path, *, backend: str = "lean", **options: Any) -> BasePackage | TorchPackage:
    """Open a package, or an ONNX model by its name's end, `.onnx`.

    Options: `threads`, and of packages `kv_tokens` (0: the defaults), `verify` the weights, and
    `copy_weights` to memory of this process alone, in huge pages: slower to open, may run faster.
    backend "torch" runs the same code inside libtorch, in a child process: slow to start, for
    packages that need libtorch and to check ours against. Raises IngotError's kinds, with a
    sentence.
    """
    if backend == "torch":
        from .torch_backend import TorchPackage

        return TorchPackage(path)
    if backend != "lean":
        raise BadInput(f"backend '{backend}' is unknown; choose lean or torch")
    if os.fspath(path).endswith(".onnx"):
        from .onnx_backend import OnnxPackage

        return OnnxPackage(path, **options)
    return Package(path, **options)

"""Ingot casts PyTorch transformers into ahead-of-time compiled packages that run without torch.

>>> import ingot
>>> package = ingot.load("model.pt2")
>>> print(*package.generate("def fibonacci(n):", max_new_tokens=40), sep="")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime import Package, Session, load

__version__ = "0.1.0"
__all__ = ["Package", "Session", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Package", "Session", "load"):
        from . import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

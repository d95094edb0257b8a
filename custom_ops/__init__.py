"""Custom operators: importing this package registers each of them as `torch.ops.ingot.<name>`.

An operator is one module here, with its `declare` call, and one .cpp in `csrc/`; both are found by
looking into the folder, so nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f".{_module.name}", __name__)

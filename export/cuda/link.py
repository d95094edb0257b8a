"""What generated code calls of libingot_cuda.so.1, and a library to link against in its place.

Code needs that library where it runs. Where it is made there may be none, as without nvcc: the
linker is given one of the same soname that has the names and nothing behind them.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from functools import cache as once
from pathlib import Path

from ...custom_ops.shims import shim_names
from .. import cache
from ..errors import ExportError

LIBRARY = "libingot_cuda.so.1"
HEADERS = Path(__file__).resolve().parents[1] / "include" / "cuda"
# Of AOTInductor's C interface, what only code for CUDA calls.
_AOTI = (
    "aoti_torch_create_cuda_guard",
    "aoti_torch_create_cuda_stream_guard",
    "aoti_torch_cuda_guard_set_index",
    "aoti_torch_delete_cuda_guard",
    "aoti_torch_delete_cuda_stream_guard",
    "aoti_torch_get_current_cuda_stream",
)


@once
def provided() -> frozenset[str]:
    """The names: of AOTInductor's interface, of CUDA as the header has them, of the ops' shims."""
    header = (HEADERS / "cuda_runtime_api.h").read_text()
    of_cuda = re.findall(r"^[^#\n]*INGOT_CUDA\((\w+)", header, re.MULTILINE)
    return frozenset((*_AOTI, *(f"ingot_{name}" for name in of_cuda), *shim_names("cuda")))


def stand_in() -> Path:
    """A library with these names, for the linker. Raises ExportError without a compiler."""
    source = "".join(f".globl {name}\n{name}:\n" for name in sorted(provided()))
    source += '.section .note.GNU-stack,"",@progbits\n'
    folder = cache.folder() / "cuda" / hashlib.sha256(source.encode()).hexdigest()
    if not cache.use(folder):
        with cache.staging(folder) as staging:
            (staging / "names.s").write_text(source)
            command = ["g++", "-shared", "-nostdlib", f"-Wl,-soname,{LIBRARY}", "names.s"]
            try:
                subprocess.run([*command, "-o", LIBRARY], cwd=staging, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise ExportError("code for CUDA cannot be linked; install g++") from error
    return folder / LIBRARY

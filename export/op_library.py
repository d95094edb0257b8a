"""A user's own operators: a shared library with their C shims, which travels in the package.

The library exports `aoti_torch_cpu_<op>` for each op that the graph calls, as AOTInductor wants it
(the declaration follows from the op's schema), has a soname, and is linked against
`libingot_host.so.1` for the `aoti_torch_*` interface. examples/own_op shows one.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ..custom_ops.declare import NAMESPACE
from ..custom_ops.schema import parse, shim_declaration, shim_name
from .errors import ExportError
from .symbols import defined

_SONAME = re.compile(r"\w[\w.+-]*", re.ASCII)  # it becomes part of the linker's command
_TORCHS = frozenset(("aten", "prim", "prims", "higher_order", NAMESPACE))


@dataclass(frozen=True)
class OpLibrary:
    path: Path
    soname: str

    @property
    def entry(self) -> str:
        """Its name in the package."""
        return f"ingot/libraries/{self.soname}"


def read_library(path: Path) -> OpLibrary:
    """Raises ExportError if it is no shared library with a soname."""
    if not path.is_file():
        raise ExportError(f"no op library {path}; build it first")
    path = path.resolve()  # which begins with no dash
    command = ["readelf", "--dynamic", "--wide", str(path)]
    found = subprocess.run(command, capture_output=True, text=True)
    soname = re.search(r"\(SONAME\).*\[(.+)\]", found.stdout)
    if found.returncode or soname is None or not _SONAME.fullmatch(soname[1]):
        raise ExportError(
            f"{path} is no shared library with a soname; link it with -Wl,-soname,{path.name}"
        )
    return OpLibrary(path, soname[1])


def own_shims(
    program: ExportedProgram, library: OpLibrary | None
) -> dict[torch._ops.OpOverload, list[str]]:
    """The C declarations of the ops that are neither torch's nor ours.

    Raises ExportError for an op that `library` does not have, or whose schema has no C form.
    """
    shims = {}
    for op in sorted(_own_ops(program), key=str):
        try:
            schema = parse(str(op._schema).partition("::")[2].replace(".default", "", 1))
        except ValueError as error:
            raise ExportError(f"op {op} has no C interface: {error}") from error
        if library is None:
            raise ExportError(
                f"the module calls {op}, which is not torch's: give the library that has its C"
                f" shim {shim_name(schema)} (--op-library)"
            )
        if shim_name(schema) not in defined(library.path):
            raise ExportError(
                f"{library.path} does not export {shim_name(schema)}, the C shim of {op}; declare"
                f" it as: {shim_declaration(schema)}"
            )
        shims[op] = [shim_declaration(schema)]
    return shims


def _own_ops(program: ExportedProgram) -> set[torch._ops.OpOverload]:
    targets = (node.target for node in program.graph.nodes if node.op == "call_function")
    overloads = (t for t in targets if isinstance(t, torch._ops.OpOverload))
    return {op for op in overloads if op.namespace not in _TORCHS}

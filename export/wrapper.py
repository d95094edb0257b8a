"""The C++ that Inductor generates to run a graph, its wrapper: taken as it comes, and rewritten for
what build.py compiles."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .cuda.kernels import cubins_of
from .cuda.wrapper import OF_GPU, launchers, renamed
from .errors import ExportError
from .replaced import replaced

# Lines of run_impl that take handles over, or are of the model's class.
_OF_A_MODEL = re.compile(
    r"\s*(__check_inputs_outputs\(|auto inputs = steal_from|.*static_cast<AOTInductorModelKernels)"
)
# What ends the part of a wrapper that is the same for all models. The model's base class, which
# both parts use and which is slow to compile, belongs to the first.
_INTERFACE_END = '} // extern "C"\n'
_BASE_CLASS = "template class AOTInductorModelBase<AOTInductorModel>;\n}\n"
_NAMESPACE = "namespace torch::aot_inductor {\n"
_CONTAINER = "#include <torch/csrc/inductor/aoti_runtime/model_container.h>"  # the interface's
# The weights are not in the object, but its loader names their place.
_NO_CONSTANTS = "uint8_t _binary_constants_bin_start[16]{}, _binary_constants_bin_end[1]{};\n"


@dataclass(frozen=True)
class Generated:
    """What Inductor made of a graph: the C++ that calls the kernels, theirs, and the names of the
    constants that it wants, in its order. cubins: files of GPU kernels, by name."""

    wrapper: str
    kernels: str
    constants: tuple[str, ...]
    cubins: Mapping[str, Path] = field(default_factory=dict)


@contextmanager
def intercepted() -> Iterator[list[Generated]]:
    """While it is open, Inductor compiles no C++; yields what it generates, a graph at a time."""
    from torch._inductor import codecache

    found: list[Generated] = []

    def compile(graph: Any, wrapper: str, kernels: str, extern: str | None, **_: Any) -> list[str]:
        if extern:
            called = json.loads(extern).get("nodes", [])
            targets = sorted({node["node"]["target"] for node in called})
            raise ExportError(
                f"the graph calls {', '.join(targets)}, for which torch has no C interface; write"
                " the module without, or with an op of your own (examples/own_op)"
            )
        names = (n for n in graph.constants if n not in graph.folded_constants)
        constants = tuple(graph.allocated_constant_name[name] for name in names)
        found.append(Generated(wrapper, kernels, constants, cubins_of(graph)))
        return [""]  # in place of the object's path

    with replaced(codecache.AotCodeCompiler, compile=compile):
        yield found


def split(wrapper: str) -> tuple[str, str]:
    """The interface all models share, and the model; ("", all) where a torch lays it out anew."""
    head, end, tail = wrapper.partition(_INTERFACE_END)
    if not end:
        return "", wrapper + _NO_CONSTANTS
    includes = [line for line in head.splitlines() if line.startswith("#include")]
    includes = [line for line in includes if line != _CONTAINER]
    model = [*includes, f"{_NAMESPACE}extern {_BASE_CLASS}", tail, _NO_CONSTANTS]
    return head + end + _NAMESPACE + _BASE_CLASS, "\n".join(model)


_CONSTANT = re.compile(
    r"""    constants_info_\[\d+\]\.name = (?P<name>.*);
    constants_info_\[\d+\]\.dtype = (?P<dtype>\w+);
    constants_info_\[\d+\]\.device_type = (?P<device>\w+);
    constants_info_\[\d+\]\.offset = 0;
    constants_info_\[\d+\]\.data_size = (?P<size>\d+);
    constants_info_\[\d+\]\.from_folded = false;
    constants_info_\[\d+\]\.type = static_cast<int32_t>\((?P<type>.*)\);
    constants_info_\[\d+\]\.shape = \{(?P<shape>.*)\};
    constants_info_\[\d+\]\.stride = \{(?P<stride>.*)\};
    constants_info_\[\d+\]\.layout = static_cast<int32_t>\(cached_torch_layout_strided\);
    constants_info_\[\d+\]\.original_fqn = (?P<path>.*);
"""
)
_TABLE = """    static const struct {{
      const char *name, *path;
      const int32_t *dtype, *device;
      torch::aot_inductor::ConstantType type;
      size_t bytes, dims;
      int64_t shape[8], stride[8];
    }} constants[] = {{
{rows}    }};
    for (size_t i = 0; i < std::size(constants); ++i) {{
      const auto& constant = constants[i];
      auto& info = constants_info_[i];
      info.name = constant.name;
      info.original_fqn = constant.path;
      info.dtype = *constant.dtype;
      info.type = static_cast<int32_t>(constant.type);
      info.data_size = constant.bytes;
      info.shape.assign(constant.shape, constant.shape + constant.dims);
      info.stride.assign(constant.stride, constant.stride + constant.dims);
      info.device_type = *constant.device;
      info.layout = static_cast<int32_t>(cached_torch_layout_strided);
    }}
"""


def with_table(wrapper: str) -> str:
    """A wrapper whose constants are a table, where they can be: as eleven statements each they take
    the compiler longer than all else of a layer."""
    constants = list(_CONSTANT.finditer(wrapper))
    whole = "".join(constant[0] for constant in constants)
    if len(constants) != wrapper.count(".original_fqn = ") or whole not in wrapper:
        return wrapper
    rows = []
    for c in constants:
        dims = len(c["shape"].split(",")) if c["shape"] else 0
        name, of_name = f"{c['name']}, {c['path']}", f"&{c['dtype']}, &{c['device']}"
        of_name += f", {c['type']}, {c['size']}"
        rows.append(f"      {{{name}, {of_name}, {dims}, {{{c['shape']}}}, {{{c['stride']}}}}},\n")
    return wrapper.replace(whole, _TABLE.format(rows="".join(rows))) if rows else wrapper


def with_own_names(prefix: str, graph: Generated) -> Generated:
    """Kernels by names that no other graph has; the events that they record keep theirs."""
    if graph.cubins:
        cubins = {f"{prefix}_{name}": path for name, path in graph.cubins.items()}
        return replace(graph, wrapper=renamed(prefix, graph.wrapper, graph.cubins), cubins=cubins)
    names = re.findall(r'^extern "C"\s+void\s+(\w+)\(', graph.kernels, re.MULTILINE)
    if not names:
        return graph
    used = re.compile(rf"\b(?:{'|'.join(names)})\(")
    wrapper, kernels = (
        used.sub(lambda match: f"{prefix}_{match[0]}", text)
        for text in (graph.wrapper, graph.kernels)
    )
    return Generated(wrapper, kernels, graph.constants)


def as_function(name: str, wrapper: str, device: str) -> str:
    """A wrapper's part that runs the graph, as a function of Inputs (include/ingot/block.h)."""
    _, _, tail = wrapper.partition(_INTERFACE_END)
    declared = re.findall(r'^extern "C"\s+void\s+\w+\(.*?\);', tail, re.MULTILINE | re.DOTALL)
    cached = re.findall(r"^CACHE_TORCH_\w+\(\w+\);", tail, re.MULTILINE)
    shims = re.findall(r'^\s*extern "C" \{\n(.*?)^\s*\}$', tail, re.MULTILINE | re.DOTALL)
    _, _, body = tail.partition("void AOTInductorModel::run_impl(")
    body, _, _ = body.partition("} // AOTInductorModel::run_impl")
    _, _, body = body.partition(") {\n")
    lines = [line for line in body.splitlines() if not _OF_A_MODEL.match(line)]
    gpu = device == "cuda"
    return "\n".join(
        (
            *declared,
            'extern "C" {',
            *shims,
            "}",
            f"namespace torch::aot_inductor::of_{name} {{",
            *cached,
            *(launchers(tail) if gpu else ()),
            "static void run(Inputs inputs, AtenTensorHandle* output_handles) {",
            *(OF_GPU if gpu else ["    constexpr int32_t device_idx_ = -1;"]),
            *map(_without_model, lines),
            "}",
            "}",
            f"namespace torch::aot_inductor {{ constexpr auto {name} = of_{name}::run; }}",
        )
    )


def _without_model(line: str) -> str:
    return line.replace("this->device_idx_", "device_idx_").replace("this->cubin_dir_", "{}")

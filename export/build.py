"""Build: the C++ that Inductor generated becomes one shared object, its files compiled in parallel.

AOTInductor would compile two files one after the other, and in each the same two thousand lines
that every model has. Here those (the container's C interface) are an object of its own, made once
a machine like the precompiled headers, and the rest compiles side by side.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from . import cache
from .errors import ExportError
from .toolchain import compiler_version

_OVERLAY = Path(__file__).with_name("include")
# Flags of ours, beside Inductor's. Only the container's interface is exported.
_FLAGS = ("-I", str(_OVERLAY), "-fvisibility=hidden", "-w")
_MODEL_HEADER = "torch/csrc/inductor/aoti_include/cpu.h"
_KERNEL_HEADER = "torch/csrc/inductor/cpp_prefix.h"
# What ends the part of a wrapper that is the same for all models. The model's base class, which
# both parts use and which is slow to compile, belongs to the first.
_INTERFACE_END = '} // extern "C"\n'
_BASE_CLASS = "template class AOTInductorModelBase<AOTInductorModel>;\n}\n"
_NAMESPACE = "namespace torch::aot_inductor {\n"
# The weights are not in the object, but its loader names their place.
_NO_CONSTANTS = "uint8_t _binary_constants_bin_start[16]{}, _binary_constants_bin_end[1]{};\n"


@dataclass
class Built:
    """A linked object, the sources it was made from, and seconds per file, which overlap.

    wrapper, kernels: the C++ that Inductor generated. constants: the names of those that the object
    wants, in its order.
    """

    shared_object: Path
    wrapper: str
    kernels: str
    sources: list[Path] = field(default_factory=list)
    constants: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


class CppBuild:
    """The build of one graph. Headers that this machine lacks begin to compile at once.

    `options` are the Inductor options that the code will be generated with.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = dict(options)
        self._folder = Path(tempfile.mkdtemp(prefix="ingot-build-"))
        self._pool = ThreadPoolExecutor(max_workers=4)
        self._headers = {
            header: self._pool.submit(_header(header, small, self._options))
            for header, small in ((_MODEL_HEADER, True), (_KERNEL_HEADER, False))
        }

    def __enter__(self) -> CppBuild:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def build(self, wrapper: str, kernels: str) -> Built:
        """Compile and link. Raises ExportError with the compiler's first complaint."""
        interface, model = _split(wrapper)
        built = Built(self._folder / "model.so", wrapper, kernels)
        jobs = {
            "model": self._compile("model", model, _MODEL_HEADER, small=True),
            "kernels": self._compile("kernels", kernels, _KERNEL_HEADER, small=False),
        }
        if interface:
            jobs["interface"] = self._interface(interface)
        objects = []
        for name, job in jobs.items():
            path, built.seconds[name] = job.result()
            objects.append(str(path))
        built.sources = sorted(self._folder.glob("*.cpp"))
        begun = time.perf_counter()
        link, _ = _command(self._options, objects, built.shared_object, small=False)
        _run(link, "the linker")
        built.seconds["link"] = time.perf_counter() - begun
        return built

    def _compile(
        self, name: str, text: str, header: str, *, small: bool
    ) -> Future[tuple[Path, float]]:
        source = self._folder / f"{name}.cpp"
        source.write_text(text)
        command, output = _command(
            self._options, [str(source)], self._folder / name, small=small, compile_only=True
        )

        def run() -> tuple[Path, float]:
            precompiled = self._headers[header].result()
            begun = time.perf_counter()
            _run([*command, "-include", str(precompiled)], f"g++ on {name}.cpp")
            return output, time.perf_counter() - begun

        return self._pool.submit(run)

    def _interface(self, text: str) -> Future[tuple[Path, float]]:
        command, output = _command(
            self._options, ["interface.cpp"], Path("interface"), small=True, compile_only=True
        )

        def make(folder: Path) -> None:
            (folder / "interface.cpp").write_text(text)
            precompiled = self._headers[_MODEL_HEADER].result()
            _run([*command, "-include", str(precompiled)], "g++ on interface.cpp", folder)

        def run() -> tuple[Path, float]:
            begun = time.perf_counter()
            folder = _once((text, *command), make)
            return folder / output, time.perf_counter() - begun

        return self._pool.submit(run)


@contextmanager
def replaces_inductors(build: CppBuild) -> Iterator[list[Built]]:
    """While it is open, Inductor hands its C++ to `build`; yields what that made."""
    from torch._inductor import codecache

    made: list[Built] = []

    def compile(graph: Any, wrapper: str, kernels: str, extern: str | None, **_: Any) -> list[str]:
        if extern:
            called = json.loads(extern).get("nodes", [])
            targets = sorted({node["node"]["target"] for node in called})
            raise ExportError(
                f"the graph calls {', '.join(targets)}, for which torch has no C interface; write"
                " the module without, or with an op of your own (examples/own_op)"
            )
        names = (n for n in graph.constants if n not in graph.folded_constants)
        built = build.build(wrapper, kernels)
        built.constants = tuple(graph.allocated_constant_name[name] for name in names)
        made.append(built)
        return [str(built.shared_object)]

    theirs = codecache.AotCodeCompiler.compile
    codecache.AotCodeCompiler.compile = compile  # type: ignore[method-assign,assignment]
    try:
        yield made
    finally:
        codecache.AotCodeCompiler.compile = theirs  # type: ignore[method-assign]


def _split(wrapper: str) -> tuple[str, str]:
    """The interface all models share, and the model; ("", all) where a torch lays it out anew."""
    head, end, tail = wrapper.partition(_INTERFACE_END)
    if not end:
        return "", wrapper + _NO_CONSTANTS
    includes = [line for line in head.splitlines() if line.startswith("#include")]
    model = [*includes, f"{_NAMESPACE}extern {_BASE_CLASS}", tail, _NO_CONSTANTS]
    return head + end + _NAMESPACE + _BASE_CLASS, "\n".join(model)


def _command(
    options: dict[str, Any], sources: list[str], output: Path, *, small: bool, **kind: Any
) -> tuple[list[str], Path]:
    """Inductor's own command line with our flags, and the file it writes.

    `small` asks for quick compilation: the wrapper is long and runs once a step.
    """
    from torch._inductor import config
    from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    with config.patch(options):
        build_options = CppTorchDeviceOptions(
            vec_isa=pick_vec_isa(), device_type="cpu", aot_mode=True, min_optimize=small, **kind
        )
        builder = CppBuilder(
            name=output.stem if not kind.get("precompiling") else str(output),
            sources=sources,
            output_dir=str(output.parent),
            BuildOption=build_options,
        )
        compiler, *rest = shlex.split(builder.get_command_line())
        return [compiler, *_FLAGS, *rest], Path(builder.get_target_file_path())


def _header(header: str, small: bool, options: dict[str, Any]) -> Callable[[], Path]:
    """What precompiles a header, once a machine, and returns the path to include."""
    line = f"#include <{header}>\n"
    command, _ = _command(options, ["header.h"], Path("header.h"), small=small, precompiling=True)

    def make(folder: Path) -> None:
        (folder / "header.h").write_text(line)
        _run(command, f"g++ on {header}", folder)

    return lambda: _once((line, *command), make) / "header.h"


def _once(identity: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """A cached folder that `make` filled, for this identity, compiler and torch."""
    overlay = [path.read_text() for path in sorted(_OVERLAY.rglob("*.h"))]
    parts = (identity, overlay, compiler_version(), torch.__version__)
    folder = cache.folder() / "cpp" / hashlib.sha256(repr(parts).encode()).hexdigest()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent))
        make(staging)
        try:
            staging.rename(folder)
        except OSError:  # another export made it first
            shutil.rmtree(staging)
    return folder


def _run(command: list[str], what: str, folder: Path | None = None) -> None:
    found = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if "error" in line] or [found.stderr]
        raise ExportError(f"{what} failed: {lines[0].strip()}; report it with the command you ran")

"""Build: the C++ that Inductor generated becomes one shared object, its files compiled in parallel.

AOTInductor would compile two files one after the other, and in each the same two thousand lines
that every model has. Here those (the container's C interface) are an object of its own, made once
a machine like the precompiled headers, and the rest compiles side by side. The record has as
phases what the export waited for, and each run of the compiler beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..profiling.record import Recorder
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
    """A linked object and the sources it was made from.

    wrapper, kernels: the C++ that Inductor generated. constants: the names of those that the object
    wants, in its order.
    """

    shared_object: Path
    wrapper: str
    kernels: str
    sources: list[Path] = field(default_factory=list)
    constants: tuple[str, ...] = ()


class CppBuild:
    """The build of one graph. Headers that this machine lacks begin to compile at once.

    `options` are the Inductor options that the code will be generated with.
    """

    def __init__(self, options: dict[str, Any], recorder: Recorder) -> None:
        self._options, self._recorder = dict(options), recorder
        self.cached: dict[str, bool] = {}  # whether what is made once a machine was there
        self._folder = Path(tempfile.mkdtemp(prefix="ingot-build-"))
        self._pool = ThreadPoolExecutor(max_workers=4)
        self._children: set[subprocess.Popen[str]] = set()
        self._ended = False
        self._headers = {
            header: self._pool.submit(self._precompile, header, small)
            for header, small in ((_MODEL_HEADER, True), (_KERNEL_HEADER, False))
        }

    def __enter__(self) -> CppBuild:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for child in list(self._children):  # of a build that was stopped
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
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
        with self._recorder.phase("header precompilation"):
            wait(self._headers.values())
        objects = []
        for name, job in jobs.items():
            with self._recorder.phase(f"C++ compile of {name}.cpp"):
                objects.append(str(job.result()))
        built.sources = sorted(self._folder.glob("*.cpp"))
        with self._recorder.phase("link"):
            link, _ = _command(self._options, objects, built.shared_object, small=False)
            self._run(link, "the linker")
        return built

    def _compile(self, name: str, text: str, header: str, *, small: bool) -> Future[Path]:
        source = self._folder / f"{name}.cpp"
        source.write_text(text)
        command, output = _command(
            self._options, [str(source)], self._folder / name, small=small, compile_only=True
        )

        def run() -> Path:
            precompiled = self._headers[header].result()
            self._run([*command, "-include", str(precompiled)], f"g++ on {name}.cpp")
            return output

        return self._pool.submit(run)

    def _interface(self, text: str) -> Future[Path]:
        command, output = _command(
            self._options, ["interface.cpp"], Path("interface"), small=True, compile_only=True
        )

        def make(folder: Path) -> None:
            (folder / "interface.cpp").write_text(text)
            precompiled = self._headers[_MODEL_HEADER].result()
            self._run([*command, "-include", str(precompiled)], "g++ on interface.cpp", folder)

        return self._pool.submit(
            lambda: self._once("interface.cpp", (text, *command), make) / output
        )

    def _precompile(self, header: str, small: bool) -> Path:
        """Once a machine; the path to include."""
        line = f"#include <{header}>\n"
        command, _ = _command(
            self._options, ["header.h"], Path("header.h"), small=small, precompiling=True
        )
        name = Path(header).name

        def make(folder: Path) -> None:
            (folder / "header.h").write_text(line)
            self._run(command, f"g++ on {name}", folder)

        return self._once(name, (line, *command), make) / "header.h"

    def _once(self, name: str, identity: tuple[str, ...], make: Callable[[Path], None]) -> Path:
        """A cached folder that `make` filled, for this identity, compiler and torch."""
        overlay = [path.read_text() for path in sorted(_OVERLAY.rglob("*.h"))]
        parts = (identity, overlay, compiler_version(), torch.__version__)
        folder = cache.folder() / "cpp" / hashlib.sha256(repr(parts).encode()).hexdigest()
        self.cached[name] = folder.is_dir()
        if not self.cached[name]:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with cache.staging(folder) as staging:
                make(staging)
        return folder

    def _run(self, command: list[str], what: str, folder: Path | None = None) -> None:
        begun = time.perf_counter()
        # The compiler's driver has children, which end with their session.
        with subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(self._folder)},
            start_new_session=True,
        ) as child:
            assert child.stderr is not None
            self._children.add(child)
            if self._ended:
                os.killpg(child.pid, signal.SIGKILL)
            complaints = child.stderr.read()
            self._children.discard(child)
            _, status, used = os.wait4(child.pid, 0)  # with the CPU time of this child alone
            child.returncode = os.waitstatus_to_exitcode(status)
        self._recorder.beside(what, begun, used.ru_utime + used.ru_stime)
        if child.returncode:
            lines = [line for line in complaints.splitlines() if "error" in line] or [complaints]
            reason = lines[0].strip()
            raise ExportError(f"{what} failed: {reason}; report it with the command you ran")


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
            sources=[shlex.quote(source) for source in sources],  # as it quotes other paths
            output_dir=shlex.quote(str(output.parent)),
            BuildOption=build_options,
        )
        compiler, *rest = shlex.split(builder.get_command_line())
        (target,) = shlex.split(builder.get_target_file_path())
        return [compiler, *_FLAGS, *rest], Path(target)

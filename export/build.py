"""Build: the C++ that Inductor generated becomes one shared object, its files compiled in parallel.

AOTInductor would compile two files one after the other, and in each the same two thousand lines
that every model has. Here those (the container's C interface) are an object of its own, made once
a machine like the precompiled headers, and the rest compiles side by side. The record has as
phases what the export waited for, and each run of the compiler beside them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..profiling.record import Recorder
from . import cache, symbols, torch_versions
from .cuda.kernels import assembly
from .cuda.wrapper import FLAGS as GPU_FLAGS
from .errors import ExportError
from .toolchain import compiler_version
from .wrapper import Generated, as_function, split, with_own_names, with_table

_OVERLAY = Path(__file__).with_name("include")
# Flags of ours, beside Inductor's. Only the container's interface is exported.
_FLAGS = ("-I", str(_OVERLAY), "-fvisibility=hidden", "-w")
# What is precompiled. A precompiled header still costs each file the templates that its own
# functions use: a second for the model's.
_MODEL_HEADERS = {
    device: f"torch/csrc/inductor/aoti_include/{device}.h" for device in ("cpu", "cuda")
}
_BLOCK_HEADER = "ingot/block.h"
_KERNEL_HEADER = "ingot/kernel.h"
_making: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


class CppBuild:
    """The build of one graph. Headers that this machine lacks begin to compile at once.

    `options` are the Inductor options that the code will be generated with, for `device`.
    """

    def __init__(self, options: dict[str, Any], recorder: Recorder, device: str = "cpu") -> None:
        self._options, self._recorder, self.device = dict(options), recorder, device
        self._model_header = _MODEL_HEADERS[device]
        self.cached: dict[str, bool] = {}  # whether what is made once a machine was there
        self._folder = Path(tempfile.mkdtemp(prefix="ingot-build-"))
        self._pool = ThreadPoolExecutor(max_workers=4)
        self._jobs: dict[str, Future[Path]] = {}
        self._children: set[subprocess.Popen[str]] = set()
        self._ended = False
        headers = [self._model_header, _BLOCK_HEADER] + [_KERNEL_HEADER] * (device == "cpu")
        self._headers = {header: self._precompile(header) for header in headers}
        self._pool.submit(symbols.offered)  # asked for at the end

    def __enter__(self) -> CppBuild:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for child in list(self._children):  # of a build that was stopped
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_model(self, graph: Generated, unrecorded: str) -> None:
        """The graph that a package runs: compiling begins. unrecorded: a shim whose calls are no
        events of a trace, since what it calls is."""
        interface, model = split(with_table(graph.wrapper))
        model = re.sub(rf'^.*RecordFunctionHandle .*"{unrecorded}".*$', "", model, flags=re.M)
        self._jobs["model"] = self._compile("model", model, self._model_header)
        self._add_kernels("kernels", [graph])
        if interface:
            self._jobs["interface"] = self._interface(interface)

    def add_functions(self, name: str, graphs: Mapping[str, Generated], caller: str) -> None:
        """Graphs as functions `void NAME(Inputs inputs, AtenTensorHandle* outputs)`, and C++ that
        calls them: compiling begins."""
        functions = [f"#include <{_BLOCK_HEADER}>"]
        renamed = {name: with_own_names(name, graph) for name, graph in graphs.items()}
        for function, graph in renamed.items():
            functions.append(as_function(function, graph.wrapper, self.device))
        functions.append(f"namespace torch::aot_inductor {{\n{caller}\n}}\n")
        self._jobs[name] = self._compile(name, "\n".join(functions), _BLOCK_HEADER)
        self._add_kernels(f"{name}_kernels", list(renamed.values()))

    def _add_kernels(self, name: str, graphs: Sequence[Generated]) -> None:
        if self.device == "cuda":
            self._jobs[name] = self._assemble(name, graphs)
            return
        text = "\n".join(graph.kernels for graph in graphs)
        self._jobs[name] = self._compile(name, text, _KERNEL_HEADER)

    def link(self) -> Path:
        """The shared object of all that was added. Raises ExportError with the compiler's first
        complaint."""
        with self._recorder.phase("header precompilation"):
            wait(self._headers.values())
        objects = []
        for name, job in self._jobs.items():
            with self._recorder.phase(f"C++ compile of {name}.cpp"):
                objects.append(str(job.result()))
        output = self._folder / "model.so"
        with self._recorder.phase("link"):
            command, _ = self._command(objects, output, small=False)
            self._run(command, "the linker")
        return output

    def sources(self) -> list[Path]:
        return sorted(self._folder.glob("*.cpp"))

    def _compile(self, name: str, text: str, header: str) -> Future[Path]:
        source, small = self._folder / f"{name}.cpp", _is_small(header)
        source.write_text(text)
        command, output = self._command(
            [str(source)], self._folder / name, small=small, compile_only=True
        )

        def run() -> Path:
            precompiled = self._headers[header].result()
            self._run([*command, "-include", str(precompiled)], f"g++ on {name}.cpp")
            return output

        return self._pool.submit(run)

    def _assemble(self, name: str, graphs: Sequence[Generated]) -> Future[Path]:
        """Machine code of GPU kernels becomes data of an object."""
        source, output = self._folder / f"{name}.s", self._folder / f"{name}.o"
        cubins = {name: path for graph in graphs for name, path in graph.cubins.items()}
        source.write_text(assembly(cubins))

        def run() -> Path:
            self._run(["g++", "-c", str(source), "-o", str(output)], f"g++ on {name}.s")
            return output

        return self._pool.submit(run)

    def _interface(self, text: str) -> Future[Path]:
        command, output = self._command(
            ["interface.cpp"], Path("interface"), small=True, compile_only=True
        )

        def make(folder: Path) -> None:
            (folder / "interface.cpp").write_text(text)
            precompiled = self._headers[self._model_header].result()
            self._run([*command, "-include", str(precompiled)], "g++ on interface.cpp", folder)

        return self._pool.submit(
            lambda: self._once("interface.cpp", (text, *command), make) / output
        )

    def _precompile(self, header: str) -> Future[Path]:
        """Once a machine; the path to include."""
        line = f"#include <{header}>\n"
        # Here, not in the pool: Inductor's options are the process's.
        command, _ = self._command(
            ["header.h"], Path("header.h"), small=_is_small(header), precompiling=True
        )
        name = Path(header).name

        def make(folder: Path) -> None:
            (folder / "header.h").write_text(line)
            self._run(command, f"g++ on {name}", folder)

        return self._pool.submit(lambda: self._once(name, (line, *command), make) / "header.h")

    def _once(self, name: str, identity: tuple[str, ...], make: Callable[[Path], None]) -> Path:
        """A cached folder that `make` filled, for this identity, compiler and torch."""
        overlay = [path.read_text() for path in sorted(_OVERLAY.rglob("*.h"))]
        parts = (identity, overlay, compiler_version(), torch.__version__)
        folder = cache.folder() / "cpp" / hashlib.sha256(repr(parts).encode()).hexdigest()
        with _making[folder]:  # builds for two GPU architectures want the same at once
            self.cached[name] = cache.use(folder)
            if not self.cached[name]:
                folder.parent.mkdir(parents=True, exist_ok=True)
                with cache.staging(folder) as staging:
                    make(staging)
        return folder

    def _command(self, sources: list[str], output: Path, **kind: Any) -> tuple[list[str], Path]:
        (compiler, *rest), target = _command(self._options, sources, output, **kind)
        flags = GPU_FLAGS if self.device == "cuda" else ()
        return [compiler, *flags, *rest], target

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


def _is_small(header: str) -> bool:
    """Whether what includes it is to compile quickly, not to run quickly: all but kernels."""
    return header != _KERNEL_HEADER


def _command(
    options: dict[str, Any], sources: list[str], output: Path, *, small: bool, **kind: Any
) -> tuple[list[str], Path]:
    """Inductor's own command line with our flags, and the file it writes.

    `small` asks for quick compilation: the wrapper is long and runs once a step.
    """
    from torch._inductor import config
    from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    with config.patch(torch_versions.inductor_options(options)):
        build_options = CppTorchDeviceOptions(
            vec_isa=pick_vec_isa(), device_type="cpu", aot_mode=True, min_optimize=small, **kind
        )
        builder = CppBuilder(
            name=output.stem if not kind.get("precompiling") else str(output),
            sources=[shlex.quote(source) for source in sources],  # as it quotes other paths
            output_dir=shlex.quote(str(output.parent)),
            BuildOption=build_options,
        )
        words = shlex.split(builder.get_command_line())
        compiler, *rest = torch_versions.compiler_command(words, options)
        (target,) = shlex.split(builder.get_target_file_path())
        return [compiler, *_FLAGS, *rest], Path(target)

"""An export that is stopped, or cannot write, leaves nothing behind and says so in one line."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingot.export import ExportError, export_checkpoint


def _heed_signals() -> None:
    """Also where these tests run in the background, in which shells let SIGINT be ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@dataclass
class Export:
    """An export in a process of its own, whose files all lie in one folder."""

    folder: Path
    checkpoint: Path

    @property
    def environment(self) -> dict[str, str]:
        places = {"TMPDIR": "tmp", "INGOT_CACHE_DIR": "cache"}
        return {**os.environ, **{name: str(self.folder / part) for name, part in places.items()}}

    def start(self, **options: object) -> subprocess.Popen[str]:
        for part in ("tmp", "cache", "out"):
            (self.folder / part).mkdir(exist_ok=True)
        output = self.folder / "out" / "model.pt2"
        command = [sys.executable, "-m", "ingot", "export", self.checkpoint, "-o", output]
        return subprocess.Popen(
            list(map(str, command)),
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            preexec_fn=_heed_signals,
            **options,  # type: ignore[call-overload]
        )

    def stop_in(self, phase: str, number: signal.Signals) -> tuple[int, list[str]]:
        """Send a signal as the phase begins: exit code, and what was said after."""
        with self.start() as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line == f"{phase} ...\n":
                    break
            process.send_signal(number)
            lines = [line for line in process.stderr if not line.endswith(" ...\n")]
        return process.returncode, lines

    def left(self) -> list[str]:
        """What is in the folders, but for what was made whole, and Inductor's own empty one."""
        found = [*self.folder.glob("out/*"), *self.folder.glob("tmp/*")]
        found += self.folder.glob("cache/*/tmp*")
        return [str(path) for path in found if not path.name.startswith("torchinductor_")]


@pytest.fixture
def export(tmp_path: Path, demo_checkpoint: Path) -> Export:
    return Export(tmp_path, demo_checkpoint)


def test_ctrl_c_while_it_loads(export: Export) -> None:
    code, lines = export.stop_in("import torch", signal.SIGINT)
    assert (code, lines[-1]) == (130, "ingot: stopped\n")  # behind what an import's callback loses
    assert export.left() == []


def test_sigterm_while_the_compiler_runs(export: Export) -> None:
    """The cache is empty, so g++ makes precompiled headers meanwhile; they end with the export."""
    assert export.stop_in("capture", signal.SIGTERM) == (143, ["ingot: stopped\n"])
    assert export.left() == []
    commands = [
        path.read_bytes()
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if os.access(path, os.R_OK)
    ]
    assert not [command for command in commands if os.fsencode(export.folder) in command]


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "phase",
    [
        "load checkpoint",
        "read tokenizer",
        "cache look-up",
        "import compiler",
        "decompositions",
        "code generation",
        "header precompilation",
        "link",
        "publish",
        "plan weights",
        "write package",
    ],
)
def test_stopped_in_every_phase(export: Export, phase: str, number: signal.Signals) -> None:
    """A stop that comes too late finds the package whole."""
    code, lines = export.stop_in(phase, number)
    output = str(export.folder / "out" / "model.pt2")
    if code == 0:
        assert export.left() == [output]
    else:
        assert (code, lines) == (128 + number, ["ingot: stopped\n"])
        assert export.left() == []
    with export.start() as process:  # the cache is whole
        process.communicate()
    assert process.returncode == 0
    assert export.left() == [output]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files grow no larger: as on a disk that is full, writing fails midway. No longer than needed,
    since it holds for what pytest writes too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("part", [0.001, 0.5, 0.98])
def test_a_full_disk(
    demo_checkpoint: Path, demo_package: Path, tmp_path: Path, part: float
) -> None:
    size = demo_package.stat().st_size
    output = tmp_path / "model.pt2"
    output.write_text("the old one")
    sentence = "cannot write .*: File too large; nothing was left"
    with largest_file(int(size * part)), pytest.raises(ExportError, match=sentence):
        export_checkpoint(demo_checkpoint, output)
    assert [*tmp_path.iterdir()] == [output]
    assert output.read_text() == "the old one"


def test_two_exports_to_one_output(demo_checkpoint: Path, tmp_path: Path) -> None:
    output, failures = tmp_path / "model.pt2", list[BaseException]()

    def export() -> None:
        try:
            export_checkpoint(demo_checkpoint, output)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=export) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [*tmp_path.iterdir()] == [output]
    with zipfile.ZipFile(output) as archive:
        assert archive.testzip() is None


def test_outputs_that_are_no_files(demo_checkpoint: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for output, sentence in (
        (tmp_path, "is a folder; give the path of a file"),
        (Path("/dev/full"), "is a device or a pipe"),
        (Path("/dev/null"), "is a device or a pipe"),
        (pipe, "is a device or a pipe"),
        (tmp_path / "none" / "model.pt2", "no folder .*none to write model.pt2 to; make it first"),
        (demo_checkpoint / "config.json" / "model.pt2", "no folder .*config.json to write model"),
        (Path("/proc/model.pt2"), "cannot be written to|cannot write"),
    ):
        with pytest.raises(ExportError, match=sentence):
            export_checkpoint(demo_checkpoint, output)
    assert Path("/dev/null").is_char_device()
    assert [*tmp_path.iterdir()] == [pipe]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(demo_checkpoint: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ExportError, match="cannot be written to; choose another"):
        export_checkpoint(demo_checkpoint, tmp_path / "model.pt2")
    tmp_path.chmod(0o700)


def test_a_link_stays_one(demo_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, target = tmp_path / "link.pt2", tmp_path / "real" / "model.pt2"
    link.symlink_to(target)
    for _ in range(2):  # at first it points nowhere
        export_checkpoint(demo_checkpoint, link)
        assert link.is_symlink()
        assert [*(tmp_path / "real").iterdir()] == [target]

"""Files from strangers, as Python reads them: refused in a sentence, whatever is in them.

The C++ readers have their own tests, and fuzz targets (tests/fuzz).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.profiling.errors import ProfileError
from ingot.profiling.readers import read_trace
from ingot.profiling.reports.report import read_record
from ingot.profiling.roofline import read_hardware
from ingot.runtime import BadInput, BadPackage
from ingot.runtime.replay import Replay
from ingot.runtime.torch_backend import checked

DEEP = "[" * 100_000 + "]" * 100_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
READERS: list[Callable[[Path], Any]] = [read_trace, read_record, lambda p: read_hardware(str(p))]
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def is_read_or_refused(read: Callable[[Path], Any], path: Path) -> bool:
    """Whether it is one or the other: anything else is raised."""
    try:
        read(path)
    except ProfileError as error:
        return path.name in str(error)
    return True


@pytest.mark.parametrize("read", READERS)
def test_deep_json(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text(DEEP)
    with pytest.raises(ProfileError, match="deep.json"):
        read(path)


@pytest.mark.parametrize("read", READERS)
@given(document=JSON)
@quick
def test_any_json(read: Callable[[Path], Any], document: Any, tmp_path: Path) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(document))
    assert is_read_or_refused(read, path)


# The fields of a trace and of a record with any values in them.
@given(
    events=st.lists(
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("ph", "name", "cat", "tid", "ts", "dur", "args"), JSON)
        )
    )
)
@quick
def test_any_events(events: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps({"traceEvents": events, "ingot": {"format_version": 1}}))
    assert is_read_or_refused(read_trace, path)


def test_a_compressed_record(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/ingot/report.json", "[" + " " * (1 << 20))
    with pytest.raises(ProfileError, match="compressed"):
        read_record(path)


def npz(**entries: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_captures_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "call.npz"
    objects = io.BytesIO()
    np.save(objects, np.array([{}]), allow_pickle=True)
    compressed = io.BytesIO()
    np.savez_compressed(compressed, x=np.zeros(1 << 20))
    huge = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}")
    for content, sentence in (
        (npz(**{"call.json": DEEP}), "is not a captured call"),
        (npz(**{"call.json": "{}", "x.npy": objects.getvalue()}), "pickle"),
        (npz(**{"call.json": "{}", "x.npy": huge}), "is not a captured call"),
        (compressed.getvalue(), "is compressed"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=sentence):
            Replay(path)


def test_the_torch_backend_loads_only_code_with_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/a.so", b"code")
    stated = {"a.so": {"sha256": hashlib.sha256(b"code").hexdigest()}}
    with zipfile.ZipFile(path) as archive:
        assert checked(archive, {"entries": stated}, "a.so") == b"code"
        for entries in ({}, {"a.so": {"sha256": "00"}}):
            with pytest.raises(BadPackage, match=r"a\.so does not have the hash"):
                checked(archive, {"entries": entries}, "a.so")

"""A package's graph in the lean host, called with inputs of the caller's own: any pages, any order.

The runtime chooses pages itself; this goes past it, by the interface that it uses too.
"""

from __future__ import annotations

import ctypes
import tempfile
import zipfile
from ctypes import byref, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import torch

from ingot import native
from ingot.runtime import read_manifest

_UINT8, _INT64, _CPU = 0, 4, 0


class _Pair(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("tensor", c_void_p)]


class LeanGraph:
    def __init__(self, package: Path) -> None:
        self.manifest = read_manifest(package)
        self.host = ctypes.CDLL(str(native.find("libingot_host.so.1")))
        with zipfile.ZipFile(package) as archive, tempfile.NamedTemporaryFile(suffix=".so") as code:
            code.write(archive.read(f"model/{self.manifest['variants'][0]['entry']}"))
            code.flush()
            self.code = ctypes.CDLL(code.name)
            stored = archive.read("model/ingot/weights.bin")
        self.weights = torch.empty(len(stored), dtype=torch.uint8)  # aligned to 64 bytes
        self.weights.copy_(torch.frombuffer(bytearray(stored), dtype=torch.uint8))
        self.container = c_void_p()
        create = self.code.AOTInductorModelContainerCreateWithDevice
        self._check(create(byref(self.container), c_size_t(1), b"cpu", None))
        self._bind()

    def _check(self, status: int) -> None:
        assert status == 0, "generated code failed"

    def _borrow(self, data: int, shape: Any, stride: Any, dtype: int) -> c_void_p:
        handle, dims = c_void_p(), len(shape)
        sizes, strides = (c_int64 * dims)(*shape), (c_int64 * dims)(*stride)
        self._check(
            self.host.aoti_torch_create_tensor_from_blob(
                c_void_p(data), c_int64(dims), sizes, strides, c_int64(0), dtype, _CPU, 0,
                byref(handle),
            )
        )  # fmt: skip
        return handle

    def _bind(self) -> None:
        count, dtype = c_size_t(), ctypes.c_int32()
        code = self.code
        self._check(code.AOTInductorModelContainerGetNumConstants(self.container, byref(count)))
        pairs = (_Pair * count.value)()
        for i in range(count.value):
            at, name, fqn = c_size_t(i), ctypes.c_char_p(), ctypes.c_char_p()
            code.AOTInductorModelContainerGetConstantName(self.container, at, byref(name))
            code.AOTInductorModelContainerGetConstantOriginalFQN(self.container, at, byref(fqn))
            code.AOTInductorModelContainerGetConstantDtype(self.container, at, byref(dtype))
            assert name.value
            assert fqn.value
            fact = self.manifest["constants"][fqn.value.decode()]
            data = self.weights.data_ptr() + fact["offset"]
            tensor = self._borrow(data, fact["shape"], fact["stride"], dtype.value)
            pairs[i] = _Pair(name.value, tensor)
        bind = code.AOTInductorModelContainerUpdateUserManagedConstantBufferPairs
        self._check(bind(self.container, pairs, count, False, True))

    def new_cache(self, num_blocks: int) -> list[torch.Tensor]:
        facts = self.manifest["kv_cache"]
        shape = (num_blocks, facts["bytes_per_block"])
        return [torch.zeros(shape, dtype=torch.uint8) for _ in range(facts["num_layers"])]

    def __call__(self, *inputs: Any) -> torch.Tensor:
        """Inputs as `models.Decoder.forward` takes them; a copy of its logits."""
        *integers, cache = inputs
        tensors = [tensor.contiguous() for tensor in integers] + cache
        handles = (c_void_p * len(tensors))(
            *(
                self._borrow(
                    x.data_ptr(), x.shape, x.stride(), _UINT8 if x.dtype == torch.uint8 else _INT64
                )
                for x in tensors
            )
        )
        made, data, sizes = (c_void_p * 1)(), c_void_p(), ctypes.POINTER(c_int64)()
        run = self.code.AOTInductorModelContainerRunSingleThreaded
        self._check(
            run(self.container, handles, c_size_t(len(tensors)), made, c_size_t(1), None, None)
        )
        out = c_void_p(made[0])
        self.host.aoti_torch_get_data_ptr(out, byref(data))
        self.host.aoti_torch_get_sizes(out, byref(sizes))
        assert data.value
        shape = sizes[0], sizes[1]
        values = (ctypes.c_float * (shape[0] * shape[1])).from_address(data.value)
        logits = torch.frombuffer(bytearray(values), dtype=torch.float32).view(shape)
        self.host.aoti_torch_delete_tensor_object(out)
        return logits

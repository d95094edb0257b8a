"""Write the seeds of the fuzz targets: `python tests/fuzz/seeds.py`.

Small packages of each kind, made by the writer that export uses, with words in place of code; and
their parts. Inputs that were once findings lie beside them under the names of what they found.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from ingot.export.archive import ArchiveWriter

CORPUS = Path(__file__).parent / "corpus"
CODE = "ingot/variants/x86-64-v2/model.so"


def token_table(tokens: list[bytes]) -> bytes:
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens) + 1)]
    return struct.pack(f"<{len(offsets) + 1}I", len(tokens), *offsets) + b"".join(tokens)


def array(name: str, *shape: str | int, dtype: str = "int64") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def manifest(kind: str, inputs: list[dict[str, Any]], **sections: Any) -> dict[str, Any]:
    return {
        "format_version": 1,
        "model": {"kind": kind, "vocab_size": 3, "hidden_size": 4, "max_seq_len": 64},
        "graph": {"inputs": inputs, "outputs": [{"name": "y"}], "symbols": {"T": [1, 100]}},
        "constants": {
            "w": {"offset": 64, "nbytes": 24, "dtype": "float32", "shape": [2, 3], "stride": [3, 1]}
        },
        "ops": {"linear": "linear(Tensor x) -> Tensor"},
        "variants": [
            {"name": "v2", "device": "cpu", "isa": "x86-64-v2", "entry": CODE, "requires": []}
        ],
        "tokenizer": True,
        **sections,
    }


RAGGED = [array("tokens", "T"), array("token_type_ids", "T"), array("positions", "T")]
MANIFESTS = {
    "decoder": manifest(
        "decoder",
        [
            *RAGGED,
            array("query_start", "B+1"),
            array("seq_lens", "B"),
            array("context_lens", "B"),
            array("block_table", "B", "P"),
            array("logit_rows", "R"),
            array("kv_cache.0", "num_blocks", 4096, dtype="uint8"),
        ],
        kv_cache={"block_size": 16, "bytes_per_block": 4096, "num_layers": 1},
        generation={"eos_token_ids": [1], "do_sample": True, "temperature": 0.5, "top_k": 3},
    ),
    "encoder": manifest(
        "encoder",
        [*RAGGED, array("query_start", "B+1")],
        embedding={"pooling": "mean", "normalize": True, "max_tokens": 64},
    ),
    "module": manifest(
        "module", [array("x", "2*T-3", 8, dtype="float32")], op_libraries=["ingot/libraries/a.so"]
    ),
}


def package(path: Path, description: dict[str, Any]) -> None:
    with ArchiveWriter(path) as archive:
        archive.add(CODE, b"code")
        archive.add("ingot/libraries/a.so", b"library")
        archive.add("ingot/weights.bin", bytes(88))
        archive.add("ingot/token_bytes.bin", token_table([b"a", b"", b"bc"]))
        stated = {**description, "entries": archive.entries}
        archive.add_last("ingot/manifest.json", json.dumps(stated).encode())


def main() -> None:
    folders = {n: CORPUS / n for n in "archive manifest signature token_table package".split()}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for kind, description in MANIFESTS.items():
        package(folders["package"] / kind, description)
        entries = {"entries": {CODE: {"bytes": 4, "sha256": "ab"}}}
        (folders["manifest"] / kind).write_text(json.dumps({**description, **entries}))
    (folders["archive"] / "package").write_bytes((folders["package"] / "module").read_bytes())
    (folders["token_table"] / "three").write_bytes(token_table([b"a", b"", b"bc"]))
    signature = (
        "x 6 T 8\nstarts 4 B+1\npairs 6 2*T-3\n@T 1 100\n=x 6 3 8\n=starts 4 2\n=pairs 6 3\n"
    )
    (folders["signature"] / "three").write_text(signature)


if __name__ == "__main__":
    main()

"""`ingot bench`: speed as medians, against the memory bandwidth measured in the same run."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import click

from .errors import BadInput
from .generate_command import rate
from .package import Package
from .prompts import made_up

_READ_BYTES = 1 << 30


def bytes_per_token(manifest: dict[str, Any], context: int) -> int:
    """Bytes that one decode step must read: every weight that it uses, and the cached tokens.

    A tied embedding is read as the head; an untied one contributes a single row, which is left out.
    """
    sizes: dict[int, int] = {
        fact["offset"]: fact["nbytes"]
        for name, fact in manifest["constants"].items()
        if not name.endswith("embed_tokens.weight")
    }
    tied = [f for n, f in manifest["constants"].items() if n.endswith("embed_tokens.weight")]
    if not any(name.endswith("lm_head.weight") for name in manifest["constants"]):
        sizes.update({fact["offset"]: fact["nbytes"] for fact in tied})
    cache = manifest["kv_cache"]
    per_token: int = cache["bytes_per_block"] * cache["num_layers"] // cache["block_size"]
    return sum(sizes.values()) + per_token * context


def measure(
    package: Package, prompt_tokens: int, new_tokens: int, repeats: int
) -> dict[str, float]:
    """Repeats of read, generate, read, generate; the medians of each. Of a GPU's memory, which is
    not read so, there are no `read_gb_s` and `bandwidth_share`."""
    if prompt_tokens < 1 or new_tokens < 2 or repeats < 1:
        raise BadInput("bench needs at least 1 prompt token, 2 new tokens and 1 repeat")
    if (kind := package.manifest["model"]["kind"]) != "decoder":
        raise BadInput(
            f"{package.path} is of kind {kind}, and bench measures decoders; ingot profile measures"
            " it"
        )
    prompt = made_up(prompt_tokens, package.manifest["model"]["vocab_size"])
    reads, prefill, decode = [], [], []
    for repeat in range(repeats + 1):
        read = package.measure_read(_READ_BYTES)
        with package.session() as session:
            list(session.generate(prompt, max_new_tokens=new_tokens, ignore_eos=True))
            stats = session.stats
        if repeat and stats:  # the first warms up
            reads.append(read)
            prefill.append(rate(prompt_tokens, stats.prefill_seconds))
            decode.append(rate(stats.new_tokens - 1, stats.decode_seconds))
    needed = bytes_per_token(package.manifest, prompt_tokens + new_tokens // 2)
    read_gb_s, decode_tok_s = statistics.median(reads), statistics.median(decode)
    found = {
        "prefill_tok_s": statistics.median(prefill),
        "decode_tok_s": decode_tok_s,
        "bytes_per_token": needed,
    }
    if read_gb_s > 0:
        share = needed * decode_tok_s / (read_gb_s * 1e9)
        found |= {"read_gb_s": read_gb_s, "bandwidth_share": share}
    return found


def run(
    path: Path,
    *,
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    as_json: bool,
    **options: Any,
) -> None:
    """options: of `Package`."""
    package = Package(path, **options)
    result = measure(package, prompt_tokens, new_tokens, repeats)
    if as_json:
        click.echo(json.dumps(result))
        return
    share = ""
    if "read_gb_s" in result:
        share = f", {result['bandwidth_share']:.0%} of the {result['read_gb_s']:.1f} GB/s read"
    click.echo(
        f"prefill of {prompt_tokens} tokens {result['prefill_tok_s']:.0f} tok/s\n"
        f"decode {result['decode_tok_s']:.1f} tok/s: {result['bytes_per_token'] / 1e6:.1f} MB a "
        f"token{share}"
    )

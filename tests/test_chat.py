"""Chat templates: rendered as transformers does, sandboxed, refused in a sentence."""

from __future__ import annotations

import json
import sys

import pytest

from ingot.runtime import BadInput, chat, sandbox

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no') }}"
    "{% endif %}\n<{{ m.role }}>{{ m.content | trim }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
MESSAGES = [{"role": "user", "content": " Grüße "}]


class FakePackage:
    """The part of a package that templates read."""

    path = "model.pt2"

    def __init__(self, **settings: object) -> None:
        self.settings = settings

    def has_entry(self, name: str) -> bool:
        return name == "ingot/tokenizer_config.json"

    def entry(self, name: str) -> bytes:
        return json.dumps(self.settings).encode()


@pytest.mark.parametrize(
    "settings",
    [
        {"chat_template": TEMPLATE, "bos_token": "<s>"},
        {"chat_template": TEMPLATE, "bos_token": {"content": "<s>"}},
        {"chat_template": [{"name": "default", "template": TEMPLATE}], "bos_token": "<s>"},
    ],
)
def test_rendered(settings: dict[str, object]) -> None:
    assert (
        chat.render(FakePackage(**settings), MESSAGES) == "<s><user>Grüße<assistant>"
    )  # trim_blocks


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "has no chat template"),
        (TEMPLATE, "refuses the messages: no"),
        ("{{ messages.append(1) }}", "the chat template fails"),
        ("{{ ''.__class__.__mro__ }}", "the chat template fails"),
        ("{% if %}", "the chat template fails"),
        ("{{ 1 / 0 }}", "the chat template fails"),
        ("{{ messages[0].role + 1 }}", "the chat template fails"),
        ("{{ range(10 ** 9) | list }}", "the chat template fails"),
        ([{"name": "other"}, {"name": "default"}], "cannot be read"),
    ],
)
def test_refused(template: object, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        chat.render(FakePackage(chat_template=template), [{"role": "bad", "content": ""}])


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "too long",
        ),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "RecursionError"),
        ("{{ 9 ** (9 ** 9) }}", "a power has too many digits"),
        ("{{ 'a' * 10 ** 12 }}", "a product is too long"),
        ("{{ 10 ** 12 * [1] }}", "a product is too long"),
        (
            "{% set n = namespace(x=7) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}"
            "{% endfor %}",
            "a product has too many digits",
        ),
        (
            "{% set x = 'a' * 2 ** 20 %}{% for i in range(999) %}{{ x }}{% endfor %}",
            "it writes more than",
        ),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
    ],
)
def test_templates_end(template: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_STEPS", 100_000)
    with pytest.raises(BadInput, match=sentence):
        chat.render(FakePackage(chat_template=template), MESSAGES)


def test_a_long_conversation_is_within_bounds() -> None:
    shown = chat.render(FakePackage(chat_template=TEMPLATE), MESSAGES * 5000)
    assert shown.count("<user>") == 5000
    assert chat.render(FakePackage(chat_template="{{ 2 ** 10 * 3 }}{{ '-' * 3 }}"), []) == "3072---"


def test_a_debuggers_tracing_is_back_afterwards() -> None:
    def trace(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        chat.render(FakePackage(chat_template=TEMPLATE), MESSAGES)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)

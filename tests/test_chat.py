"""Chat templates: rendered as transformers does, sandboxed, refused in a sentence."""

from __future__ import annotations

import json

import pytest

from ingot.runtime import BadInput, chat

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

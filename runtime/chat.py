"""Chat templates: Jinja, as the Hugging Face layout has them.

A template is code from a stranger, so it runs in a sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .. import json_text
from .errors import BadInput

if TYPE_CHECKING:
    from .base import BasePackage


def _template(package: BasePackage) -> tuple[str, dict[str, Any]]:
    """The template and the tokenizer's settings, which hold the special tokens it may use."""
    settings: dict[str, Any] = {}
    try:
        if package.has_entry("ingot/tokenizer_config.json"):
            settings = dict(json_text.parse(package.entry("ingot/tokenizer_config.json")))
        if package.has_entry("ingot/chat_template.jinja"):
            return package.entry("ingot/chat_template.jinja").decode(), settings
        template = settings.get("chat_template")
        if isinstance(template, list):  # several, by name
            template = next((t["template"] for t in template if t["name"] == "default"), None)
    except (ValueError, LookupError, TypeError) as error:
        raise BadInput(
            f"the chat template of {package.path} cannot be read ({error!r}); export it again"
        ) from error
    if not isinstance(template, str):
        raise BadInput(f"{package.path} has no chat template; give the prompt as plain text")
    return template, settings


def _special(settings: dict[str, Any], name: str) -> str:
    token = settings.get(name) or ""
    return token["content"] if isinstance(token, dict) else token


def render(package: BasePackage, messages: Sequence[dict[str, str]]) -> str:
    """Raises BadInput if there is no template, or it refuses the messages."""
    from . import sandbox

    def refuse(sentence: str) -> None:
        raise BadInput(f"the chat template refuses the messages: {sentence}")

    text, settings = _template(package)
    variables = {
        "messages": list(messages),
        "add_generation_prompt": True,
        "bos_token": _special(settings, "bos_token"),
        "eos_token": _special(settings, "eos_token"),
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    try:
        return sandbox.render(text, variables)
    except BadInput:
        raise
    except Exception as error:  # it is a program, so it may fail in any way: 1 / 0
        raise BadInput(f"the chat template fails: {error!r}") from error

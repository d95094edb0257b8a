"""`hf:CHECKPOINT`: transformers' own model, with its cache and PyTorch's fused attention.

Traced as `eager` is, by hooks on transformers' modules; aliases say which of ours those are.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...child import serve
from ...models import DTYPES, Plan
from ...profiling.engine import Request
from ...profiling.errors import ProfileError
from .common import Forward, TorchEngine
from .hooks import ModuleTimer


class Transformers(TorchEngine):
    name = "hf"

    def load(self) -> None:
        if importlib.util.find_spec("transformers") is None:
            raise ProfileError("transformers is not installed; pip install transformers")
        import transformers

        if self.source.recipe is not None:
            raise ProfileError("transformers runs a checkpoint as it is; leave the recipe out")
        logging: Any = transformers.utils.logging  # its functions have no types
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        options: dict[str, Any] = {
            "dtype": DTYPES[self.source.dtype],
            "attn_implementation": "sdpa",
            "local_files_only": True,
        }
        kind: Any = transformers.AutoModelForCausalLM
        if self.source.kind == "encoder":
            kind, options["add_pooling_layer"] = transformers.AutoModel, False
        self.model = kind.from_pretrained(self.source.checkpoint, **options).eval()
        names = [path for path, _ in self.model.named_modules() if path]
        self.aliases |= aliases(self.source.plan, names, self.model.base_model_prefix)

    def begin(self, request: Request) -> Forward:
        from transformers import DynamicCache

        def encode(tokens: list[int], _: int) -> Tensor:
            hidden: Tensor = self.model(torch.tensor([tokens])).last_hidden_state
            return hidden[0].float()

        if self.source.kind == "encoder":
            return encode
        cache = DynamicCache(config=self.model.config)

        def decode(tokens: list[int], _: int) -> Tensor:
            ids = torch.tensor([tokens])
            out = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits: Tensor = out.logits[0, -1]
            return logits.float()

        return decode

    def tracer(self) -> ModuleTimer:
        return ModuleTimer(self.model)


def aliases(plan: Plan, theirs: Iterable[str], prefix: str) -> dict[str, str]:
    """Which of our modules each of transformers' is, where the paths differ.

    A module with tensors is the one of ours that holds them. One around such is the innermost of
    ours around those: BERT's `attention.self`, with query, key and value in it, is our `attention`.
    Another, such as an activation, counts to the one that it is in. prefix: of the names of tensors
    that a checkpoint may have or lack, "bert".
    """
    own = {path for path, _ in plan.model.named_modules()}
    known = plan.model.aliases(plan.on_disk).items()
    holds = {name.removeprefix(f"{prefix}."): path for name, path in known}
    found = {"": ""}
    for module in theirs:  # parents first
        bare = module.removeprefix(f"{prefix}.")
        inside = [path for name, path in holds.items() if name.startswith(f"{bare}.")]
        if bare in holds:
            found[module] = holds[bare]
        elif module in own:
            found[module] = module
        elif inside:
            found[module] = _common([path.split(".")[:-1] for path in inside])
        else:
            found[module] = found[module.rpartition(".")[0]]
    return {module: path for module, path in found.items() if path and path != module}


def _common(paths: list[list[str]]) -> str:
    """The innermost path that all lie in."""
    return ".".join(os.path.commonprefix(paths))


if __name__ == "__main__":
    serve(Transformers)

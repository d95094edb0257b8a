"""Reading a quantisation config: what several methods' fields share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ...models.errors import shortened
from ...models.families.family import LARGEST, Fields

# How the weights were found, which says nothing about what they are.
CALIBRATION = frozenset(
    """meta backend dataset tokenizer batch_size pad_token_id model_seqlen seqlen nsamples iters lr
    minmax_lr damp_percent damp_auto_increment true_sequential static_groups act_group_aware mse
    hyb_act gptaq foem v2 v2_alpha model_name_or_path model_file_base_name block_name_to_quantize
    to_quant_block_names block_list module_name_preceding_first_block cache_block_outputs
    max_input_length use_cuda_fp16 use_exllama disable_exllama exllama_config modules_to_fuse
    do_fuse fuse_max_seq_len autoround_version low_gpu_mem_usage low_cpu_mem_usage
    enable_quanted_input enable_minmax_tuning enable_norm_bias_tuning gradient_accumulate_steps
    not_use_best_mse dynamic_max_gap amp scale_dtype offload_to_disk""".split()
)


def read_bits(fields: Fields, supported: tuple[int, ...], default: int | None = None) -> int:
    """Raises ValueError."""
    bits = fields.size("bits", default)
    if bits not in supported:
        known = " and ".join(map(str, supported))
        raise ValueError(f"weights of {bits} bits are not supported; supported are {known}")
    return bits


def check_group_size(size: Any) -> int:
    """A group size on disk: a multiple of 32, or -1. Raises ValueError."""
    if type(size) is not int or size != -1 and (not 0 < size <= LARGEST or size % 32):
        raise ValueError(
            f"group_size {shortened(size)} is not supported; supported are multiples of 32 and -1"
        )
    return size


def check_pack_dtype(fields: Fields) -> None:
    """Raises ValueError unless integers are packed into int32."""
    dtype = fields.text("pack_dtype", "int32")
    if dtype.removeprefix("torch.") != "int32":
        raise ValueError(f"pack_dtype {shortened(dtype)} is not supported; supported is int32")


def check_dynamic(fields: Fields) -> None:
    """Raises ValueError if some modules are quantised otherwise. That some are not ("-:" and a
    pattern) is seen from their tensors."""
    for pattern in fields.section("dynamic"):
        if not pattern.startswith("-:"):
            raise ValueError(
                f"dynamic has the override {shortened(pattern)}; overrides for some modules are not"
                " supported: quantise all alike"
            )


def check_unread(fields: Fields, where: str, inert: Collection[str] = ()) -> None:
    """Raises ValueError for a field that was not read, unless it is off or among `inert`."""
    for name, value in fields.unread():
        if name not in inert and value not in (None, False, 0, "", [], {}):
            raise ValueError(
                f"{where} {shortened(name)} = {shortened(value)} is not understood; this"
                " version cannot import such a checkpoint"
            )

"""Quantized bases for LoRA training (QLoRA)."""

import importlib.util
from typing import Any, Literal

import torch

Quantization = Literal["none", "8bit", "4bit"]


def quantized(kind: Quantization) -> dict[str, Any]:
    """The options of `from_pretrained` that load a quantized base.

    "none" gives no options; "4bit" is NF4 with double quantization.

    Raises:
        ValueError: If bitsandbytes is not installed.

    Source: Dettmers et al. 2023 (https://arxiv.org/abs/2305.14314).
    """
    if kind == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"quantize: found {kind!r} and bitsandbytes is not installed; required: it. Install "
            "prefsearch[qlora], or take quantize: none"
        )
    from transformers import BitsAndBytesConfig

    # The head is new and trained as a whole, so it stays in floats.
    kept = ["score", "classifier"]
    if kind == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    else:
        precise = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=precise,
            llm_int8_skip_modules=kept,
        )
    return {"quantization_config": config}

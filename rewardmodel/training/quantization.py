"""QLoRA: options to load a base model quantized by bitsandbytes."""

import importlib.util
from typing import Any

import torch


def quantized(*, load_in_4bit: bool = False, load_in_8bit: bool = False) -> dict[str, Any]:
    """The options of `from_pretrained` that load a base in small integers.

    Args:
        load_in_4bit: NF4 with double quantization.
        load_in_8bit: LLM.int8().

    Raises:
        ValueError: If bitsandbytes is not installed.

    Source: Dettmers et al. 2023 (https://arxiv.org/abs/2305.14314).
    """
    if not (load_in_4bit or load_in_8bit):
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"{'load_in_4bit' if load_in_4bit else 'load_in_8bit'}: found no bitsandbytes; "
            "required: it. Install prefsearch[qlora], or take full precision"
        )
    from transformers import BitsAndBytesConfig

    # The head is new and trained as a whole, so it stays in floats.
    kept = ["score", "classifier"]
    if load_in_8bit:
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

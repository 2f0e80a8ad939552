"""A small randomly initialized transformer: the from-scratch baseline of reward models."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from prefsearch.storage.folders import new_folder
from rewardmodel.pretrained.tokenization import load_tokenizer


def build_scratch_scorer(
    tokenizer_of: str, folder: Path, *, seed: int, hidden_size: int = 128, layers: int = 4
) -> Path:
    """Writes a one-label Llama of random weights with another model's tokenizer.

    It supports texts, and pairs as encoders do.

    Args:
        tokenizer_of: Hub id or folder whose tokenizer it takes.
        folder: Output, which is returned; an existing folder is kept.
        seed: Of the weights.
        hidden_size: Its width, in heads of 32.
        layers: Its depth.
    """
    if (folder / "config.json").is_file():
        return folder
    tokenizer = load_tokenizer(tokenizer_of)
    # A Llama has no token types; it tells the segments of a pair by the separators between them.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden_size // 32),
        max_position_embeddings=2048,
        # The default, 0.02, is far too small at such a width.
        initializer_range=0.7 * hidden_size**-0.5,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.num_labels = 1
    model = LlamaForSequenceClassification(config)
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    return folder

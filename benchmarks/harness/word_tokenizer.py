"""A tokenizer of one token a word, for models with random weights."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>")  # ids 0, 1, 2, which llm-reasoners assumes


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of the words `w3` and up for a vocabulary of this size."""
    words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), vocabulary))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=SPECIAL[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, begin, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad, bos_token=begin, eos_token=end
    )

"""Tiny tokenizers with chat templates of published shapes, and tiny models that read by them."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from rewardmodel.data.conversation import Conversation

_LOOP = "{% for m in messages %}"
_CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n"
    "{% endif %}" + _LOOP + "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}"
    + _LOOP
    + "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "<start_of_turn>{{ role }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_ZEPHYR = (
    _LOOP + "<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}" + _LOOP + "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}" + _LOOP + "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
_PHI3 = (
    _LOOP + "<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
_PLAIN = (
    _LOOP + "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
_DEEPSEEK = (
    "{{ bos_token }}" + _LOOP + "{% if m['role'] == 'user' %}<user>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<reply>{{ m['content'].split('</think>')[-1] }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<reply><think>\n{% endif %}"
)
PARTS = (
    _LOOP + "<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}{% if part['type'] == "
    "'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SHAPES: dict[str, dict[str, Any]] = {
    "qwen": {"template": _CHATML, "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]},
    "qwen-instruct": {
        "template": _CHATML,
        "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "eos": "<|im_end|>",
    },
    "gemma": {
        "template": _GEMMA,
        "special": ["<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        "bos": "<bos>",
        "adds_bos": True,
    },
    "zephyr": {
        "template": _ZEPHYR,
        "special": ["</s>", "<s>"],
        "bos": "<s>",
        "adds_bos": True,
        "sentencepiece": True,
    },
    "llama-3": {
        "template": _LLAMA3,
        "special": ["<|eot_id|>", "<|bot|>", "<|start_header_id|>", "<|end_header_id|>"],
        "bos": "<|bot|>",
        "adds_bos": True,
    },
    "mistral": {
        "template": _MISTRAL,
        "special": ["</s>", "<s>"],
        "bos": "<s>",
        "adds_bos": True,
        "sentencepiece": True,
    },
    "phi-3": {"template": _PHI3, "special": ["<|endoftext|>", "<|user|>", "<|end|>"]},
    "deepseek-r1": {
        "template": _DEEPSEEK,
        "special": ["<eos>", "<bos>", "<think>", "<user>", "<reply>"],
        "bos": "<bos>",
        "adds_bos": True,
    },
    "marks-are-no-tokens": {"template": _CHATML, "special": ["<|endoftext|>"]},
    "no-closer": {"template": _PLAIN, "special": ["<|endoftext|>"]},
}
"""The end token is the first of `special`, where `eos` names no other."""

CORPUS = [
    "What is the best way to learn a language? Speak it every day, with friends.",
    "<|im_start|>user assistant system model [INST] [/INST] <|im_end|> You are helpful.",
    "Yes.\n\nNo, I do not think so: 1 + 2 = 3.",
]


def chat_tokenizer(shape: str, *, template: bool = True) -> Any:
    """A tokenizer of one of the shapes, with a pad token of its own."""
    kind = SHAPES[shape]
    special = ["<|pad|>", *kind["special"]]
    if kind.get("sentencepiece"):
        bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        bpe.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
             decoders.Strip(" ", 1, 0)]
        )  # fmt: skip
        special = [*special, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        alphabet: list[str] = []
    else:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    eos, bos = kind.get("eos", kind["special"][0]), kind.get("bos")
    if kind.get("adds_bos"):
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, bpe.token_to_id(bos))],
        )
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token=eos, bos_token=bos
    )
    if template:
        tokenizer.chat_template = kind["template"]
    return tokenizer


def chat_config(tokenizer: Any, **options: Any) -> LlamaConfig:
    """The size of the tiny models."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )


def write_chat_scorer(folder: Path, shape: str, *, labels: int = 1, seed: int = 0) -> str:
    """Writes a random reward model with a tokenizer of one of the shapes."""
    tokenizer = chat_tokenizer(shape)
    torch.manual_seed(seed)
    LlamaForSequenceClassification(chat_config(tokenizer, num_labels=labels)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_chat_policy(folder: Path, shape: str, *, template: bool = True, seed: int = 0) -> str:
    """Writes a random policy with a tokenizer of one of the shapes."""
    tokenizer = chat_tokenizer(shape, template=template)
    torch.manual_seed(seed)
    LlamaForCausalLM(chat_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


PROMPTS = [
    Conversation(({"role": "user", "content": "What is 1 + 2?"},)),
    Conversation(({"role": "user", "content": "What is 1 + 2?"},)),
    Conversation(
        (
            {"role": "user", "content": "Is it\nso?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Why? "},
        )
    ),
]
REPLIES = ["It is 3.", " No,\n\nI do not think so ", "\nBecause\n"]


def template_ids(tokenizer: Any, prompt: Conversation, reply: str) -> list[int]:
    """What transformers makes of a conversation and a reply."""
    messages = [*prompt.messages, {"role": "assistant", "content": reply}]
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]


@torch.inference_mode()
def template_scores(source: str) -> torch.Tensor:
    """Scores of PROMPTS and REPLIES by transformers alone, float32 [3, labels]."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    rows = [template_ids(tokenizer, *pair) for pair in zip(PROMPTS, REPLIES, strict=True)]
    return torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows])

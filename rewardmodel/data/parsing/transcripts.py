r"""Turn markers in plain text: the end of the prompt that two transcripts share.

Markers are "\n\nHuman:" and "\n\nAssistant:", "### Instruction:" and "### Response:", "Q:" and
"A:", or the special tokens of chat templates. A shared beginning without such a marker is no
evidence of a prompt: 40 of 40 replies may begin with "The".
"""

import re


def _words(*words: str) -> re.Pattern[str]:
    """A word and a colon at the beginning of a line, optionally as a heading or in bold."""
    options = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    marker = (
        rf"^[ \t]*(?:\#{{1,6}}[ \t]*|\*{{1,2}}|<)?({options})[*>]{{0,2}}[ \t]*:\*{{0,2}}"
        rf"|^\#{{1,6}}[ \t]*({options})[ \t]*(?=\n)"
    )
    return re.compile(marker, re.IGNORECASE | re.MULTILINE)


def _tokens(*tokens: str) -> re.Pattern[str]:
    """Special tokens of chat templates, with the line breaks that belong to them."""
    options = "|".join(re.escape(token) for token in tokens)
    return re.compile(rf"({options})\n{{0,2}}", re.IGNORECASE)


_FAMILIES = (
    (
        _tokens("<|im_start|>user", "<|user|>", "<|prompter|>", "<|human|>", "<｜User｜>"),
        _tokens("<|im_start|>assistant", "<|assistant|>", "<｜Assistant｜>"),
    ),
    (
        _tokens("<|start_header_id|>user<|end_header_id|>"),
        _tokens("<|start_header_id|>assistant<|end_header_id|>"),
    ),
    (
        _tokens("<start_of_turn>user", "<|turn>user"),
        _tokens("<start_of_turn>model", "<|turn>model"),
    ),
    (
        _tokens("<|start|>user<|message|>"),
        _tokens("<|start|>assistant<|channel|>final<|message|>", "<|start|>assistant<|message|>"),
    ),
    (_tokens("[INST]"), re.compile(r"(\[/INST\])")),
    (
        _words("human", "user", "person", "prompter", "customer"),
        _words("assistant", "ai", "bot", "chatbot", "gpt", "chatgpt", "model", "agent", "response"),
    ),
    (_words("question", "q", "problem"), _words("answer", "a", "solution")),
    (
        _words("instruction", "instructions", "input", "prompt", "request", "query", "task"),
        _words("response", "output", "completion", "reply", "answer"),
    ),
    (
        _words("subreddit", "post", "article", "document", "dialogue", "text"),
        _words("tl;dr", "summary"),
    ),
    # On one line, as Vicuna and OpenChat write them.
    (
        re.compile(r"(?<![^\s>])((?:GPT4 Correct )?User|USER|HUMAN):"),
        re.compile(r"(?<![^\s>])((?:GPT4 Correct )?Assistant|ASSISTANT|GPT|BOT|AI):"),
    ),
)
"""Markers of who asks and of who answers; the one that asks first decides."""


def prompt_end(shared: str) -> int | None:
    """The end of the prompt in the shared beginning of two transcripts: the last answer marker.

    None where the shared text has no markers of a question and its answer.
    """
    questions = [
        (found.start(), -len(found.group()), place)
        for place, (asks, _) in enumerate(_FAMILIES)
        if (found := asks.search(shared))
    ]
    for _, _, place in sorted(questions):
        asks, answers = _FAMILIES[place]
        question = asks.search(shared)
        assert question is not None  # it is among those that were found
        end, word = None, None
        for found in answers.finditer(shared, question.end()):
            if word is None and not shared[question.end() : found.start()].strip():
                continue
            # Later answers have the marker of the first: "A:" in a reply is no turn of a
            # transcript whose turns are "Assistant:".
            word = word or found.group(found.lastindex or 0)
            if found.group(found.lastindex or 0) == word:
                end = found.end()
        if end is not None:
            return end
    return None

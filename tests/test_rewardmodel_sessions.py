import copy
import logging
import random
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PretrainedConfig,
)

from rewardmodel.interface import ScoringSession, SessionRewardModel
from rewardmodel.models.sequence import PlainSession, SequenceRewardModel
from rewardmodel.prefix_cache.sessions import PrefixSession, head_of, worth_sharing
from rewardmodel.pretrained.tokenization import TextEncoder
from tests.fakes import Words
from tests.prefix_growth import GROUPED, SHARING, SIZES, VOCABULARY

ATOL = 2e-5  # scores are of order one; the same numbers are added in another order
CAUSAL = ["llama", "mistral, a window", "qwen2, mixed", "qwen3", "gemma", "gemma2", "gemma3",
          "gpt2", "gpt_neox", "phi3"]  # fmt: skip


def scorer(
    config: PretrainedConfig | None = None, *, max_length: int | None = 200, batch_size: int = 128
) -> SequenceRewardModel:
    """An untrained reward model whose tokens are the words of a text, numbers."""
    config = copy.deepcopy(config or LlamaConfig(**GROUPED))
    config.num_labels, config.pad_token_id = 1, Words.pad_token_id
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    return SequenceRewardModel(model, TextEncoder(Words(), max_length), batch_size=batch_size)


def words(count: int, *, seed: float) -> str:
    draw = random.Random(seed)
    return " ".join(str(draw.randrange(3, VOCABULARY)) for _ in range(count))


def whole(model: SequenceRewardModel, prompt: str, response: str, *, finished: bool) -> list[int]:
    prompt_ids, response_ids = model.encoder.pair(prompt, response, finished=finished)
    return prompt_ids + response_ids


def plain(
    model: SequenceRewardModel, prompts: list[str], responses: list[str], *, finished: bool = True
) -> torch.Tensor:
    """Each text alone, from its beginning, through the whole classifier."""
    pairs = zip(prompts, responses, strict=True)
    rows = [whole(model, p, r, finished=finished) for p, r in pairs]
    with torch.inference_mode():
        found = [model.model(input_ids=torch.tensor([row])).logits[0] for row in rows]
    return torch.cat(found)


def given(model: SequenceRewardModel) -> list[int]:
    """Collects how many tokens each forward pass is given from now on."""
    seen: list[int] = []
    model._scorer  # noqa: B018 - looks at the model before anything is counted
    model.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((*args, kwargs.get("input_ids"))[0].numel()),
        with_kwargs=True,
    )
    return seen


def held(model: Any, prompts: list[str], responses: list[str], *, finished: bool = True) -> None:
    """Holds a reward model's or a session's scores to plain runs."""
    reward_model, session = model if isinstance(model, tuple) else (model, model)
    found = session.score(prompts, responses, finished=finished)
    expected = plain(reward_model, prompts, responses, finished=finished)
    torch.testing.assert_close(found, expected, atol=ATOL, rtol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_scores_of_shared_prompts_are_those_of_plain_runs(family: str) -> None:
    model = scorer(SHARING[family], batch_size=5)
    long, short = words(30, seed=1), words(2, seed=2)
    prompts = [long] * 7 + [short] * 2 + [words(9, seed=3)] * 3 + [words(40, seed=4)]
    responses = [words(3 + 2 * i, seed=10 + i) for i in range(len(prompts))]
    seen = given(model)
    held(model, prompts, responses)
    assert model._scorer is not None
    texts = [whole(model, *pair, finished=True) for pair in zip(prompts, responses, strict=True)]
    seen.clear()
    model.score(prompts, responses)
    tokens = sum(seen)
    _, unshared = model._score_alone([(text, []) for text in texts])
    assert tokens < 0.8 * unshared


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("family", CAUSAL)
def test_a_session_scores_growing_texts_as_plain_runs_do(family: str, finished: bool) -> None:
    model = scorer(SHARING[family])
    session = model.session()
    assert isinstance(session, PrefixSession)
    draw = random.Random(0)
    texts = {words(12, seed=1): [""], words(25, seed=2): [""]}
    for number in range(4):
        prompts, responses = [], []
        for prompt, known in texts.items():
            for _ in range(6):
                # A beginning of a known text, cut anywhere, with something new or nothing behind.
                start = draw.choice(known).split()
                kept = start[: draw.randrange(len(start) + 1)]
                known.append(" ".join(kept + words(draw.randrange(6), seed=draw.random()).split()))
                prompts.append(prompt)
                responses.append(known[-1])
        held((model, session), prompts, responses, finished=finished)
        if number == 1:
            held((model, session), prompts[:5], responses[:5], finished=not finished)
        if number == 2:
            gone, left = texts
            session.keep([left])
            texts[gone] = [""]


def test_a_session_reads_each_token_once() -> None:
    model = scorer()
    seen = given(model)
    session = model.session()
    prompt = words(20, seed=1)

    def new(*responses: str, finished: bool = True) -> int:
        """Tokens that a call gave to the model, fillers of rows aside."""
        before = session.forward_tokens - session._tree.padding_tokens  # type: ignore[attr-defined]
        session.score([prompt] * len(responses), responses, finished=finished)
        assert session.forward_tokens == sum(seen)
        return session.forward_tokens - session._tree.padding_tokens - before  # type: ignore[attr-defined]

    assert new("5 6 7") == 21 + 4  # with the tokens that begin and end a text
    assert new("5 6 7") == 0
    assert new("5 6 7 8 9") == 2 + 1, "the end token is in nobody's way"
    assert new("5 6", "5 6 7", finished=False) == 0
    assert new("5 6", "5", "") == 3, "an end token each"
    assert new("5 6 10 11", "5 6 10 12 13", "5 6 10 12", "5 6 10") == 4 + 4
    assert new("", finished=False) == 0
    session.keep([])
    assert new("5 6 7") == 25
    session.score([words(n, seed=n) for n in (5, 20)], ["5 6 7 8", "9"])  # rows of unequal length
    assert session._tree.padding_tokens > 0  # type: ignore[attr-defined]
    assert session.forward_tokens == sum(seen)


def test_what_is_cut_or_filled_up_is_counted_too() -> None:
    model = scorer(max_length=40)
    seen = given(model)
    session = model.session()
    prompt = words(20, seed=1)
    session.score([prompt] * 4, [words(n, seed=n) for n in (30, 30, 3, 9)])  # two are cut
    assert session.forward_tokens == sum(seen)
    seen.clear()
    pairs = [model.encoder.pair(prompt, words(n, seed=n)) for n in (2, 9, 15)]
    assert model._score_pairs(pairs)[1] == sum(seen) == 21 + 3 * 16


def test_short_responses_are_not_padded_to_long_ones() -> None:
    model = scorer()
    pairs = [model.encoder.pair(words(20, seed=1), words(n, seed=n)) for n in [80] * 7 + [9] * 60]
    assert model._score_pairs(pairs)[1] == 21 + 7 * 81 + 60 * 10


def test_what_a_session_forgets_frees_its_rows() -> None:
    model = scorer()
    session = model.session()
    assert isinstance(session, PrefixSession)
    first, second = words(10, seed=1), words(15, seed=2)
    session.score([first, second, second], ["5 6", "7 8", "7 9"])
    assert sorted(session._tree._cache.lengths) == [11 + 3, 16 + 5]
    session.keep({second})
    assert session._tree._cache.lengths == [16 + 5]
    held((model, session), [second, second, first], ["7 9 10", "7", "5 6 7"])


@pytest.mark.parametrize("session", [False, True])
def test_texts_that_were_cut_share_nothing_wrongly(session: bool) -> None:
    model = scorer(max_length=24)
    reward_model = model.session() if session else model
    prompt = words(14, seed=1)
    lengths = [2, 5, 8, 9, 9, 10, 12, 12, 12, 22, 23, 24, 30, 30]  # 15 with the first token
    responses = [words(length, seed=i) for i, length in enumerate(lengths)]
    grown = [f"{responses[0]} {words(length, seed=99)}" for length in (3, 8, 15, 25)]
    for finished in (True, False):
        texts = responses + grown
        held((model, reward_model), [prompt] * len(texts), texts, finished=finished)
        held((model, reward_model), [""] * 3, [responses[-1], responses[0], ""], finished=True)


def test_a_prompt_that_is_part_of_another_keeps_its_own_texts() -> None:
    model = scorer()
    session = model.session()
    prompt = words(10, seed=1)
    held((model, session), [prompt, f"{prompt} 5 6", prompt], ["5 6 7", "7", "5 6"])


@pytest.mark.parametrize("merged", [False, True])
def test_adapters_share_merged_or_not(merged: bool) -> None:
    plain_model = scorer().model
    lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(plain_model, lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "score" in name:
                weight.normal_(std=0.3)
    reward_model = SequenceRewardModel(model.merge_and_unload() if merged else model,
                                TextEncoder(Words(), 200))  # fmt: skip
    prompts, responses = [words(20, seed=1)] * 4, [words(n, seed=n) for n in (1, 4, 5, 9)]
    held(reward_model, prompts, responses)
    session = reward_model.session()
    assert isinstance(session, PrefixSession)
    held((reward_model, session), prompts, responses)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (BertConfig(**SIZES, intermediate_size=64), "does not score by one layer"),
        (LlamaConfig(**GROUPED), "cannot share a cache"),
    ],
    ids=["encoder", "no shared cache"],
)
def test_other_models_take_the_plain_path_with_one_warning(
    config: PretrainedConfig,
    why: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rewardmodel.prefix_cache.backbone import Backbone

    def refuse(self: Any, *args: Any, **options: Any) -> torch.Tensor:
        raise ValueError("no mask of its own")

    monkeypatch.setattr(Backbone, "_small_tree", refuse)
    model = scorer(config)
    prompts, responses = [words(20, seed=1)] * 3, [words(n, seed=n) for n in (1, 4, 5)]
    with caplog.at_level(logging.WARNING, logger="rewardmodel"):
        held(model, prompts, responses)
        session = model.session()
        assert isinstance(session, PlainSession)
        seen = given(model)
        held((model, session), prompts, responses, finished=False)
        session.keep([])
        assert session.forward_tokens == seen[0] == 3 * 26  # three rows of the longest
    assert [why in record.getMessage() for record in caplog.records] == [True]


def test_a_head_of_more_than_one_layer_is_seen() -> None:
    model = scorer().model
    assert head_of(model) is model.score
    forward = model.forward

    def capped(*args: Any, **options: Any) -> Any:
        output = forward(*args, **options)
        output.logits = 5 * torch.tanh(output.logits / 5)
        return output

    model.forward = capped
    assert head_of(model) is None


def test_sharing_is_for_prompts_that_are_worth_it() -> None:
    prompt, other = list(range(30)), [7]
    pairs = [(prompt, [1, 2]), (other, [3]), (prompt, [4]), ([], [5]), ([], [6]),
             (other, [1] * 50), (list(range(9)), [1])]  # fmt: skip
    assert worth_sharing(pairs) == [0, 2]


@pytest.mark.parametrize("session", [False, True])
def test_scores_that_are_no_numbers_are_refused_by_row(session: bool) -> None:
    model = scorer()
    with torch.no_grad():
        model.model.score.weight.fill_(torch.nan)
    reward_model = model.session() if session else model
    with pytest.raises(ValueError, match=r"scored row 0 as nan \(3 of 3 rows"):
        reward_model.score([words(20, seed=1)] * 3, ["5", "6", "7 8"])


def test_a_text_without_tokens_is_an_error() -> None:
    class Bare(Words):
        begins = False

    model = SequenceRewardModel(scorer().model, TextEncoder(Bare(), 200))
    for reward_model in (model, model.session()):
        with pytest.raises(ValueError, match="have no tokens; required: at least one"):
            reward_model.score(["", "5"], ["", "6"], finished=False)


def test_a_sequence_reward_model_has_sessions() -> None:
    model = scorer()
    assert isinstance(model, SessionRewardModel)
    session: ScoringSession = model.session()
    assert session.forward_tokens == 0

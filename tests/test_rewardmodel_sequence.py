import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from rewardmodel.models.sequence import SequenceRewardModel, load_scorer
from rewardmodel.prefix_cache.sessions import PrefixSession
from rewardmodel.pretrained.compatibility import check_vocabulary
from tests.reward_folders import save_adapter, set_json

PROMPTS = [
    "Write a short story about the baker, the bell and the lake.\n",
    "How?\n",
    "Tell me of the bell.\n",
]
CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-5}  # scores are of order ten
STORY = (
    "The baker found the bell at the lake. It was old and it was loud. He rang the bell and the "
    "town came to the lake. That was all. They went home and told the story to each other."
)


@pytest.fixture(scope="module")
def folder(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained reward model with the synthetic task's tokenizer."""
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(policy_folder, num_labels=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5)  # attention is all but uniform, so that a wrong prefix shows
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy_folder).save_pretrained(folder)
    return folder


def alone(model: SequenceRewardModel, prompts: list[str], responses: list[str]) -> torch.Tensor:
    return torch.cat([model.score([p], [r]) for p, r in zip(prompts, responses, strict=True)])


@pytest.mark.parametrize("max_length", [256, 48])
def test_text_that_grows_by_words_scores_the_same_in_a_session(
    folder: Path, max_length: int
) -> None:
    model = SequenceRewardModel.load(str(folder), max_length=max_length)
    session = model.session()
    assert isinstance(session, PrefixSession)
    draw = random.Random(0)
    words = STORY.split(" ")
    scored = 0
    for count in range(0, len(words), 3):
        # The tokens at the end of a text may be others when it goes on.
        prompts = [draw.choice(PROMPTS) for _ in range(6)]
        endings = ["", " ", "!", words[count], f" {draw.choice(words)}", "\n"]
        responses = [" ".join(words[:count]) + ending for ending in endings]
        expected = alone(model, prompts, responses)
        torch.testing.assert_close(session.score(prompts, responses), expected, **CLOSE)
        torch.testing.assert_close(model.score(prompts, responses), expected, **CLOSE)
        rows = map(model.encoder.joined, prompts, responses)
        scored += sum(len(row) for row in rows)
        if count % 9 == 0:
            session.keep(PROMPTS[1:])
    if max_length == 256:  # otherwise most prompts are cut, and little is shared
        assert session.forward_tokens < 0.5 * scored


def test_an_unfinished_text_is_scored_at_its_last_token(folder: Path) -> None:
    model = SequenceRewardModel.load(str(folder))
    prompts, responses = [PROMPTS[0]] * 3, ["The baker", "The baker found the bell", ""]
    for scorer in (model, model.session()):
        found = scorer.score(prompts, responses, finished=False)
        for score, response in zip(found, responses, strict=True):
            first, second = model.encoder.pair(PROMPTS[0], response, finished=False)
            with torch.inference_mode():
                expected = model.model(input_ids=torch.tensor([first + second])).logits[0, 0]
            torch.testing.assert_close(score, expected, **CLOSE)


def test_nothing_to_score_is_nothing(folder: Path) -> None:
    model = SequenceRewardModel.load(str(folder))
    for scorer in (model, model.session()):
        assert scorer.score([], []).shape == (0,)


def last_hidden(model: SequenceRewardModel, ids: list[int]) -> torch.Tensor:
    """The head on the hidden state at the very last token of one text alone."""
    with torch.inference_mode():
        hidden = model.model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        return model.model.score(hidden)[0]


def test_the_last_token_is_found_by_length_whatever_the_pad_token(folder: Path) -> None:
    model = SequenceRewardModel.load(str(folder))
    tokenizer = model.encoder.tokenizer
    # The text of the pad token, pad = end token, and texts without an end token.
    responses = [
        "The baker" + tokenizer.pad_token,
        "The bell",
        "The lake." + tokenizer.pad_token * 2,
    ]
    prompts = PROMPTS[:3]
    for pad in (tokenizer.pad_token_id, model.encoder.end_id):
        model.model.config.pad_token_id = pad
        for finished in (True, False):
            pairs = [
                model.encoder.pair(p, r, finished=finished)
                for p, r in zip(prompts, responses, strict=True)
            ]
            ids = [prompt + response for prompt, response in pairs]
            if finished == (pad == model.encoder.end_id):
                assert any(row[-1] == pad for row in ids)
            expected = torch.stack([last_hidden(model, row) for row in ids])
            found = model.score(prompts, responses, finished=finished)
            torch.testing.assert_close(found, expected, **CLOSE)


def test_a_shift_is_taken_off_on_every_path(folder: Path) -> None:
    plain, shifted = SequenceRewardModel.load(str(folder)), SequenceRewardModel.load(str(folder))
    shifted.model.config.reward_shift = 2.5
    prompts, responses = [PROMPTS[0]] * 3, ["The baker", "The bell rang.", ""]
    expected = plain.score(prompts, responses) - 2.5
    torch.testing.assert_close(shifted.score(prompts, responses), expected, **CLOSE)
    torch.testing.assert_close(alone(shifted, prompts, responses), expected, **CLOSE)
    torch.testing.assert_close(shifted.session().score(prompts, responses), expected, **CLOSE)


def test_a_checkpoint_of_another_architecture_is_refused(folder: Path, tmp_path: Path) -> None:
    bert = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=400,
                      intermediate_size=32, num_labels=1)  # fmt: skip
    AutoModelForSequenceClassification.from_config(bert).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    for init_head in (True, False):
        with pytest.raises(ValueError, match=r"holds no weights for \d+ parts of the LlamaForSeq"):
            load_scorer(str(tmp_path), init_head=init_head)
    with pytest.raises(ValueError, match=r"such as model\.embed_tokens\.weight"):
        SequenceRewardModel.load(str(tmp_path))


def test_a_model_without_a_trained_head_scores_nothing(policy_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(policy_folder, tmp_path / "m")
    set_json(tmp_path / "m" / "config.json", id2label={"0": "reward"}, label2id={"reward": 0})
    with pytest.raises(ValueError, match=r"has no trained head \(score.weight missing\)"):
        SequenceRewardModel.load(str(tmp_path / "m"))


def test_an_adapter_without_a_head_is_refused(policy_folder: Path, tmp_path: Path) -> None:
    folder = save_adapter(policy_folder, tmp_path / "a", seed=0)
    SequenceRewardModel.load(str(folder)).score(["How?"], ["So."])
    path = folder / "adapter_model.safetensors"
    kept = {name: w for name, w in load_file(path).items() if "score" not in name}
    save_file(kept, path)
    with pytest.raises(
        ValueError, match="has no trained head: the adapter holds none and its base"
    ):
        SequenceRewardModel.load(str(folder))


def test_an_adapter_keeps_its_shift_beside_it(policy_folder: Path, tmp_path: Path) -> None:
    folder = save_adapter(policy_folder, tmp_path / "a", seed=0)
    before = SequenceRewardModel.load(str(folder)).score(["How?"], ["So."])
    model = AutoModelForSequenceClassification.from_pretrained(policy_folder, num_labels=1)
    model.config.reward_shift = 0.75
    model.config.save_pretrained(folder)
    after = SequenceRewardModel.load(str(folder)).score(["How?"], ["So."])
    torch.testing.assert_close(after, before - 0.75, **CLOSE)


def test_token_ids_beyond_the_embeddings_are_refused(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = SequenceRewardModel.load(str(folder))
    tokenizer = model.encoder.tokenizer
    size = len(tokenizer)
    check_vocabulary(model.model, tokenizer, source="here")
    model.model.resize_token_embeddings(size + 40)  # filled up
    check_vocabulary(model.model, tokenizer, source="here")
    assert "is it this model's?" not in caplog.text
    model.model.resize_token_embeddings(2 * size)
    check_vocabulary(model.model, tokenizer, source="here")
    assert "is it this model's?" in caplog.text
    model.model.resize_token_embeddings(size - 3)
    message = rf"the id {size - 1} and the model has {size - 3} embeddings \(3 tokens lie beyond"
    with pytest.raises(ValueError, match=message):
        check_vocabulary(model.model, tokenizer, source="here")

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForTokenClassification

from rewardmodel.data.conversation import Conversation
from rewardmodel.evaluation.process import evaluate_process_model
from rewardmodel.interface import SessionRewardModel, StepRewardModel
from rewardmodel.models.aggregation import combine_steps
from rewardmodel.models.process import ProcessRewardModel, load_step_scorer
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.process import _Collator, step_loss, train_process_model
from tests.reward_folders import CLOSE, PROMPT, save_classifier, set_json

STEPS = [
    ["The baker found the bell.", "He rang it.", "That was all."],
    ["That was all."],
    ["The town came to the lake.", "They went home."],
]
RIGHT, WRONG = "The baker found the bell at the lake.", "That was all."


@pytest.fixture(scope="module")
def folder(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained process reward model."""
    folder = tmp_path_factory.mktemp("process") / "m"
    return save_classifier(policy_folder, folder, seed=0, labels=2, tokens=True)


def plain(model: ProcessRewardModel, prompt: str, steps: list[str]) -> Tensor:
    """Each step read in a run of its own, over the text up to it."""
    found = []
    encoder = model.encoder
    ids = encoder.prompt_ids(prompt)
    for step in steps:
        for text in (step, model.separator):
            ids = ids + encoder.response_ids(text, finished=False)
        with torch.inference_mode():
            logits = model.model(input_ids=torch.tensor([ids])).logits[0, -1]
        found.append(logits.softmax(-1)[1])
    return torch.stack(found)


@pytest.mark.parametrize("prompts", [[PROMPT] * 3, [PROMPT, "How?\n", PROMPT * 2]])
def test_a_step_is_read_at_its_end_shared_prompt_or_not(folder: Path, prompts: list[str]) -> None:
    model = ProcessRewardModel.load(str(folder))
    assert isinstance(model, StepRewardModel)
    found = model.step_scores(prompts, STEPS)
    for scores, prompt, steps in zip(found, prompts, STEPS, strict=True):
        torch.testing.assert_close(scores, plain(model, prompt, steps), **CLOSE)
    assert torch.cat(found).std() > 0.01, "scores that are all alike test nothing"


def test_responses_to_one_prompt_share_it(folder: Path) -> None:
    model = ProcessRewardModel.load(str(folder))
    steps = [STEPS[0], STEPS[0], STEPS[2], STEPS[2]]
    shared, few = model._step_scores([PROMPT] * 4, steps)
    model.__dict__["_backbone"] = None
    alone, many = model._step_scores([PROMPT] * 4, steps)
    torch.testing.assert_close(torch.cat(shared), torch.cat(alone), **CLOSE)
    assert few < 0.8 * many


def test_a_response_is_its_steps_aggregated(folder: Path) -> None:
    response = "\n\n".join(STEPS[0])
    scores = plain(ProcessRewardModel.load(str(folder)), PROMPT, STEPS[0])
    expected = {"min": scores.min(), "mean": scores.mean(), "product": scores.prod(),
                "last": scores[-1]}  # fmt: skip
    for aggregate, value in expected.items():
        model = ProcessRewardModel.load(str(folder), aggregate=aggregate)  # type: ignore[arg-type]
        torch.testing.assert_close(model.score([PROMPT], [response])[0], value, **CLOSE)
    with pytest.raises(ValueError, match="aggregate: found 'max'; required: one of min, product"):
        ProcessRewardModel.load(str(folder), aggregate="max")  # type: ignore[arg-type]
    assert combine_steps(torch.tensor([0.5, 0.5]), "product") == 0.25


def test_a_search_reads_text_up_to_a_step_as_the_whole_response_has_it(folder: Path) -> None:
    model = ProcessRewardModel.load(str(folder), aggregate="last")
    assert isinstance(model, SessionRewardModel)
    session = model.session()
    whole = model.step_scores([PROMPT], [STEPS[0]])[0]
    for count, expected in enumerate(whole, start=1):
        text = "\n\n".join(STEPS[0][:count])
        for unfinished in (text, text + "\n\n"):
            found = session.score([PROMPT], [unfinished], finished=False)[0]
            torch.testing.assert_close(found, expected, **CLOSE)
    assert session.forward_tokens > 0
    assert session.score([PROMPT], [""], finished=False).isfinite().all()


def test_one_label_is_a_sigmoid(policy_folder: Path, tmp_path: Path) -> None:
    folder = save_classifier(policy_folder, tmp_path / "m", seed=0, labels=1, tokens=True)
    model = ProcessRewardModel.load(str(folder))
    ids = model.encoder.prompt_ids(PROMPT) + model.encoder.response_ids(
        "So." , finished=False) + model.encoder.response_ids("\n\n", finished=False)  # fmt: skip
    with torch.inference_mode():
        expected = model.model(input_ids=torch.tensor([ids])).logits[0, -1].sigmoid()
    torch.testing.assert_close(model.step_scores([PROMPT], [["So."]])[0], expected, **CLOSE)


def test_wrong_input_is_named(
    folder: Path, policy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ProcessRewardModel.load(str(folder), max_length=20)
    with pytest.raises(ValueError, match="row 1: found no steps"):
        model.step_scores([PROMPT] * 2, [["a"], []])
    scores = model.step_scores([PROMPT], [STEPS[0] * 5])[0]
    assert len(scores) == 15
    assert "steps lie beyond 20 tokens" in caplog.text
    with torch.no_grad():
        model.model.score.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="scored row 0 as nan"):
        model.step_scores([PROMPT], [["a"]])
    three = save_classifier(policy_folder, tmp_path / "m", seed=0, labels=3, tokens=True)
    with pytest.raises(ValueError, match=r"has 3 labels; required: 2 \(wrong, right\) or 1"):
        load_step_scorer(str(three), init_head=False)
    with pytest.raises(ValueError, match="has no trained head"):
        load_step_scorer(str(policy_folder), init_head=False)
    with pytest.raises(ValueError, match="separator: found an empty text"):
        ProcessRewardModel(model.model, model.encoder, separator="")


# ---------------------------------------------------------------------------------------- training


def judged(count: int = 24) -> Dataset:
    steps = [[RIGHT, WRONG], [WRONG, RIGHT, RIGHT]]
    return Dataset.from_dict(
        {
            "prompt": [PROMPT] * count,
            "completions": [steps[i % 2] for i in range(count)],
            "labels": [[[1.0, 0.0], [0.0, 1.0, 1.0]][i % 2] for i in range(count)],
        }
    )


def quick(**options: object) -> OptimConfig:
    return OptimConfig(**{"learning_rate": 5e-3, "batch_size": 8, "epochs": 8, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [0, 8])
def test_training_tells_right_steps_from_wrong_ones(
    policy_folder: Path, tmp_path: Path, rank: int
) -> None:
    options = quick(lora_rank=rank, learning_rate=2e-2 if rank else 5e-3)
    found = train_process_model(
        str(policy_folder), judged(), tmp_path / "m", optimization=options, separator="\n"
    )
    assert (found["rows"], found["steps"], found["cut"], found["updates"]) == (24, 60, 0, 24)
    assert found["loss_last"] < 0.5 * np.log(2)
    model = ProcessRewardModel.load(str(tmp_path / "m"))
    assert model.separator == "\n", "the folder remembers it"
    assert (tmp_path / "m" / "adapter_config.json").exists() == bool(rank)
    measured = evaluate_process_model(model, judged(4))
    assert measured.accuracy.estimate == 1
    assert measured.first_error is not None
    assert measured.first_error.estimate == 1


def test_the_loss_is_the_mean_cross_entropy_at_ends_alone() -> None:
    rows = [{"ids": [5, 6, 7, 8], "ends": [1, 3], "labels": [1.0, 0.25]},
            {"ids": [5, 6], "ends": [1], "labels": [0.0]}]  # fmt: skip
    batch = _Collator(0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 6, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 2)
    chance = logits.softmax(-1)[..., 1]
    at = [(chance[0, 1], 1.0), (chance[0, 3], 0.25), (chance[1, 1], 0.0)]
    terms = [-(y * p.log() + (1 - y) * (1 - p).log()) for p, y in at]
    expected = torch.stack(terms)
    loss = step_loss({"logits": logits}, batch["labels"])
    torch.testing.assert_close(loss, expected.mean())
    part = step_loss({"logits": logits}, batch["labels"], 12)
    torch.testing.assert_close(part, expected.sum() / 12)


def test_an_update_weighs_all_steps_alike_however_it_is_divided(
    policy_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(policy_folder, base)
    set_json(base / "config.json", classifier_dropout=0.0)
    data = judged(8)
    scores = []
    for rows, parts in ((8, 1), (2, 4)):
        out = tmp_path / f"{rows}"
        options = quick(epochs=2, batch_size=rows, gradient_accumulation_steps=parts)
        train_process_model(str(base), data, out, optimization=options)
        model = ProcessRewardModel.load(str(out))
        scores.append(torch.cat(model.step_scores([PROMPT] * 3, STEPS)))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-3)


def test_long_rows_are_cut_and_counted(policy_folder: Path, tmp_path: Path) -> None:
    data = Dataset.from_dict(
        {
            "prompt": [PROMPT * 20, PROMPT, PROMPT],
            "completions": [[RIGHT, WRONG], [RIGHT, WRONG], [RIGHT] * 20],
            "labels": [[1.0, 0.0], [1.0, 0.0], [1.0] * 20],
        }
    )
    options = quick(epochs=1, max_length=64)
    found = train_process_model(str(policy_folder), data, tmp_path / "m", optimization=options)
    assert (found["rows"], found["cut"]) == (3, 2)
    assert 0 < found["lost_steps"] < 20
    assert found["steps"] + found["lost_steps"] == 24
    assert ProcessRewardModel.load(str(tmp_path / "m")).encoder.max_length == 64


def test_data_that_teach_nothing_are_refused(policy_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    with pytest.raises(ValueError, match="no steps to train on"):
        train_process_model(str(policy_folder), judged(2).select([]), out, optimization=quick())
    alike = Dataset.from_dict({"prompt": ["a"], "completions": [["b"]], "labels": [[1.0]]})
    with pytest.raises(ValueError, match=r"all steps have the label 1.0; required: right and wro"):
        train_process_model(str(policy_folder), alike, out, optimization=quick())


# -------------------------------------------------------------------------------------- evaluation


class _Said:
    """Says what it is told to, row by row."""

    def __init__(self, *rows: list[float]) -> None:
        self._rows = iter(rows)

    def step_scores(self, prompts: list[str], steps: list[list[str]]) -> list[Tensor]:
        return [torch.tensor(next(self._rows)) for _ in prompts]


def test_first_errors_are_found_or_not() -> None:
    data = Dataset.from_dict(
        {
            "prompt": list("abcd"),
            "completions": [["s"] * 3] * 4,
            "labels": [[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.5]],
        }
    )
    said = _Said([0.9, 0.1, 0.8], [0.2, 0.1, 0.9], [0.9, 0.9, 0.9], [0.9, 0.4, 0.9])
    found = evaluate_process_model(said, data, batch_rows=3)
    assert (found.responses, found.steps) == (4, 11)  # one step is half right
    assert found.accuracy.estimate == pytest.approx(8 / 11, abs=0.1)
    assert found.first_error is not None
    assert found.all_right is not None
    assert (found.first_error.estimate, found.all_right.estimate) == (0.5, 0.5)
    assert found.f1 == 0.5
    only = evaluate_process_model(_Said([0.9] * 3), data.select([2]))
    assert (only.first_error, only.f1) == (None, None)
    with pytest.raises(ValueError, match=r"scored from 0.9 to 3; required: probabilities"):
        evaluate_process_model(_Said([0.9, 3.0, 1.0]), data.select([0]))


def test_a_token_classifier_of_a_policy_gets_a_fresh_head(policy_folder: Path) -> None:
    model = load_step_scorer(str(policy_folder), init_head=True)
    assert isinstance(model, type(AutoModelForTokenClassification.from_config(model.config)))
    assert model.score.weight.shape == (2, 32)
    assert float(model.score.weight.detach().std()) == pytest.approx(33**-0.5, rel=0.3)
    assert not model.score.bias.any()


def test_replies_of_messages_are_read_as_their_text_or_refused(folder: Path) -> None:
    model = ProcessRewardModel.load(str(folder))
    message = {"role": "assistant", "content": "He rang it.", "name": "Bob"}
    plain = model.score([PROMPT], ["He rang it."])
    torch.testing.assert_close(model.score([PROMPT], [Conversation((message,))]), plain)
    call = {**message, "tool_calls": [{"function": {"name": "ring", "arguments": {}}}]}
    with pytest.raises(ValueError, match="found tool_calls for a process model"):
        model.score([PROMPT], [Conversation((call,))])

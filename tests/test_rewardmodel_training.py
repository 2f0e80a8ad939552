import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from policies.generation.language_model import fine_tune, load_language_model
from prefsearch.storage.errors import StorageError
from rewardmodel.models.loading import load_reward_model
from rewardmodel.models.sequence import SequenceRewardModel, load_scorer
from rewardmodel.pretrained.tokenization import load_tokenizer
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.process import train_process_model
from rewardmodel.training.reward_model import train_reward_model
from tests.reward_folders import save_classifier

PROMPT = "Write a short story about the baker, the bell and the lake.\n"
GOOD, BAD = "The baker found the bell at the lake.", "That was all."


def pairs(count: int = 32) -> Dataset:
    return Dataset.from_dict(
        {"prompt": [PROMPT] * count, "chosen": [GOOD] * count, "rejected": [BAD] * count}
    )


def quick(**options: Any) -> OptimConfig:
    return OptimConfig(**{"learning_rate": 5e-3, "batch_size": 8, **options})


@pytest.fixture(scope="module")
def reward_folder(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "model"
    result = train_reward_model(str(policy_folder), pairs(), folder, optimization=quick(epochs=3))
    assert result["updates"] == 12
    return folder


def test_training_learns_the_preference(reward_folder: Path) -> None:
    scores = SequenceRewardModel.load(str(reward_folder)).score([PROMPT, PROMPT], [GOOD, BAD])
    assert scores[0] > scores[1] + 1


def test_a_score_does_not_depend_on_the_batch(reward_folder: Path) -> None:
    responses = [GOOD, BAD, GOOD * 5, "The", BAD * 3]
    prompts = [PROMPT, "How?\n", PROMPT, PROMPT * 2, "How?\n"]
    alone = SequenceRewardModel.load(str(reward_folder), batch_size=1).score(prompts, responses)
    together = SequenceRewardModel.load(str(reward_folder)).score(prompts, responses)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


def test_the_saved_folder_is_an_ordinary_classifier_with_the_same_scores(
    reward_folder: Path,
) -> None:
    ours = SequenceRewardModel.load(str(reward_folder)).score([PROMPT], [GOOD])
    model = AutoModelForSequenceClassification.from_pretrained(reward_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(reward_folder)
    ids = tokenizer(PROMPT)["input_ids"] + tokenizer(GOOD)["input_ids"] + [tokenizer.eos_token_id]
    with torch.inference_mode():
        plain = model(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def test_the_end_token_is_read_even_where_pad_was_the_end(
    policy_folder: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy_folder)
    model = AutoModelForSequenceClassification.from_pretrained(policy_folder, num_labels=1)
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward_model = SequenceRewardModel.load(str(tmp_path))
    finished = reward_model.score([PROMPT], [GOOD])
    ids = reward_model.encoder.joined(PROMPT, GOOD)
    assert ids[-1] == tokenizer.eos_token_id
    with torch.inference_mode():
        hidden = model.eval().model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        expected = model.score(hidden)
    torch.testing.assert_close(finished, expected, atol=1e-5, rtol=1e-5)


def test_adapters_train_and_save_their_head(policy_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    train_reward_model(
        str(policy_folder), pairs(), folder, optimization=quick(epochs=4, lora_rank=4)
    )
    assert (folder / "adapter_config.json").is_file()
    scores = SequenceRewardModel.load(str(folder)).score([PROMPT, PROMPT], [GOOD, BAD])
    assert scores[0] > scores[1]


def test_nan_scores_are_refused_by_row(reward_folder: Path) -> None:
    reward_model = SequenceRewardModel.load(str(reward_folder))
    with torch.no_grad():
        reward_model.model.score.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"scored row 0 as nan \(2 of 2 rows"):
        reward_model.score([PROMPT, PROMPT], [GOOD, BAD])


def test_a_classifier_of_several_labels_is_no_reward_model(
    policy_folder: Path, tmp_path: Path
) -> None:
    AutoModelForSequenceClassification.from_pretrained(policy_folder, num_labels=3).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="has 3 labels; required: 1"):
        load_scorer(str(tmp_path), init_head=False)


def test_no_data_is_an_error(policy_folder: Path, tmp_path: Path) -> None:
    empty = pairs().select([])
    with pytest.raises(ValueError, match="no preference pairs"):
        train_reward_model(str(policy_folder), empty, tmp_path / "m", optimization=quick())
    with pytest.raises(ValueError, match="no demonstrations"):
        fine_tune(str(policy_folder), Dataset.from_dict({"prompt": [], "completion": []}),
                  tmp_path / "m", optimization=quick())  # fmt: skip


def test_long_pairs_are_cut_and_counted_not_dropped(policy_folder: Path, tmp_path: Path) -> None:
    data = Dataset.from_dict(
        {"prompt": [PROMPT * 40, PROMPT], "chosen": [GOOD, GOOD], "rejected": [BAD, BAD]}
    )
    result = train_reward_model(
        str(policy_folder), data, tmp_path / "m", optimization=quick(max_length=64, batch_size=2)
    )
    assert (result["pairs"], result["cut"], result["updates"]) == (2, 1, 1)


def test_fine_tuning_learns_a_completion(policy_folder: Path, tmp_path: Path) -> None:
    data = Dataset.from_dict({"prompt": [PROMPT] * 32, "completion": [GOOD] * 32})
    result = fine_tune(str(policy_folder), data, tmp_path / "m", optimization=quick(epochs=15))
    assert result["loss_last"] < 0.5 * result["loss_first"]


def test_a_full_disk_while_saving_leaves_nothing_behind(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    def full(self: Any, folder: Path, **kwargs: Any) -> None:
        Path(folder, "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    folder = tmp_path / "m"
    with pytest.raises(StorageError, match=r"free some space"):
        train_reward_model(str(policy_folder), pairs(8), folder, optimization=quick())
    assert not folder.exists()
    assert not list(tmp_path.glob("*.partial-*"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", "1e-3", r"learning_rate: found '1e-3' \(str\); required: float"),
        ("epochs", 0, "epochs: found 0; required: more than 0"),
        ("batch_size", True, r"batch_size: found True \(bool\); required: int"),
        ("max_length", 3, "max_length: found 3; required: at least 8"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**{name: value})  # type: ignore[arg-type]


def test_training_goes_on_from_a_reward_model_with_its_head(
    reward_folder: Path, tmp_path: Path
) -> None:
    before = load_scorer(str(reward_folder), init_head=False).score.weight
    again = load_scorer(str(reward_folder), init_head=True).score.weight
    torch.testing.assert_close(again, before, atol=0, rtol=0)


def test_adapters_on_a_policy_of_adapters_forget_neither(
    policy_folder: Path, tmp_path: Path
) -> None:
    demonstrations = Dataset.from_dict({"prompt": [PROMPT] * 32, "completion": [GOOD] * 32})
    first, second, reward = (tmp_path / name for name in ("first", "second", "reward"))
    lora = quick(epochs=20, lora_rank=8, learning_rate=1e-2)
    fine_tune(str(policy_folder), demonstrations, first, optimization=lora)
    assert (first / "adapter_config.json").is_file()
    barely = quick(epochs=1, lora_rank=4, learning_rate=1e-7)
    fine_tune(str(first), demonstrations, second, optimization=barely)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.inference_mode():
        logits = [
            load_language_model(str(folder)).eval()(input_ids=ids).logits
            for folder in (policy_folder, first, second)
        ]
    assert (logits[1] - logits[0]).abs().max() > 0.1
    torch.testing.assert_close(logits[2], logits[1], atol=1e-3, rtol=1e-3)
    result = train_reward_model(str(first), pairs(), reward, optimization=quick(epochs=3))
    assert result["updates"] == 12
    scores = SequenceRewardModel.load(str(reward)).score([PROMPT, PROMPT], [GOOD, BAD])
    assert scores[0] > scores[1]


def test_a_half_written_checkpoint_is_passed_over(policy_folder: Path, tmp_path: Path) -> None:
    checkpoints = tmp_path / "trainer"
    (checkpoints / "checkpoint-3").mkdir(parents=True)  # a kill came before its state was written
    result = train_reward_model(
        str(policy_folder),
        pairs(),
        tmp_path / "m",
        optimization=quick(save_steps=2),
        checkpoints=checkpoints,
    )
    assert result["updates"] == 4
    assert not checkpoints.exists()


def test_a_reward_model_remembers_the_length_it_was_trained_with(
    policy_folder: Path, tmp_path: Path
) -> None:
    options = quick(max_length=40)
    train_reward_model(str(policy_folder), pairs(8), tmp_path / "m", optimization=options)
    assert SequenceRewardModel.load(str(tmp_path / "m")).encoder.max_length == 40


def test_a_tokenizer_of_another_model_is_named_before_training(
    policy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(str(policy_folder))
    for rows, folder in ((50, tmp_path / "few"), (4000, tmp_path / "many")):
        config = LlamaConfig(vocab_size=rows, hidden_size=32, intermediate_size=32, num_labels=1,
                             num_hidden_layers=1, num_attention_heads=2)  # fmt: skip
        LlamaForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    options = OptimConfig(batch_size=4)
    with pytest.raises(ValueError, match=r"tokens and the model 50 embeddings; required: a token"):
        train_reward_model(str(tmp_path / "few"), pairs(4), tmp_path / "m", optimization=options)
    train_reward_model(str(tmp_path / "many"), pairs(4), tmp_path / "m", optimization=options)
    assert "and the model 4000 embeddings; is it this model's?" in caplog.text


def test_more_tokens_than_places_are_refused(policy_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(policy_folder))
    kinds = {
        "bert": (BertForSequenceClassification, BertConfig),
        "roberta": (RobertaForSequenceClassification, RobertaConfig),
    }
    for name, (kind, config) in kinds.items():
        settings = config(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_labels=1,
            num_attention_heads=2, intermediate_size=32, max_position_embeddings=34,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        folder = str(tmp_path / name)
        kind(settings).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # RoBERTa's places begin behind that of padding, here 0.
        places = {"bert": 34, "roberta": 33}[name]
        wrong = f"max_length: found 64, and .* has learned places for {places} tokens; required"
        with pytest.raises(ValueError, match=wrong):
            load_reward_model(folder, max_length=64)
        with pytest.raises(ValueError, match=wrong):
            train_reward_model(folder, pairs(4), tmp_path / "m",
                               optimization=OptimConfig(max_length=64))  # fmt: skip
        # Left to the model, the longest text is as long as it can read.
        found = train_reward_model(folder, pairs(8), tmp_path / "m", optimization=OptimConfig())
        assert found["cut"] == 8
        assert load_reward_model(folder).score(["A bell. " * 99], ["Yes."]).isfinite().all()


def test_a_head_for_something_else_is_named(policy_folder: Path, tmp_path: Path) -> None:
    three = str(save_classifier(policy_folder, tmp_path / "three", seed=0, labels=3))
    wrong = (
        r"three holds weights of other shapes than a sequence classifier of 1 label: it is "
        r"LlamaForSequenceClassification of 3 labels; required: such .* Begin from the base"
    )
    with pytest.raises(ValueError, match=wrong):
        train_reward_model(three, pairs(4), tmp_path / "m", optimization=quick())
    steps = Dataset.from_dict({"prompt": ["a"], "completions": [["b", "c"]], "labels": [[1, 0]]})
    with pytest.raises(ValueError, match="than a token classifier of 2 labels: it is Llama"):
        train_process_model(three, steps, tmp_path / "m", optimization=quick())


def test_steps_whose_loss_is_no_number_end_training_at_once(
    policy_folder: Path, tmp_path: Path
) -> None:
    base = save_classifier(policy_folder, tmp_path / "base", seed=0, labels=2, tokens=True)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"].fill_(3e38)  # finite, but the logits are not
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    steps = Dataset.from_dict(
        {"prompt": ["a"] * 8, "completions": [["b", "c"]] * 8, "labels": [[1.0, 0.0]] * 8}
    )
    options = quick(batch_size=2, save_steps=1)
    with pytest.raises(ValueError, match=r"is (nan|not finite) after 1 updates; required: finite"):
        train_process_model(str(base), steps, tmp_path / "m", optimization=options)
    assert not list(tmp_path.glob("m-trainer/checkpoint-*"))

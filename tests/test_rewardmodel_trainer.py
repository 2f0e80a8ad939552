"""The trainer of comparisons: TRL's loss to the digit, in one process or two, killed or not."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from rewardmodel.models.sequence import load_scorer
from rewardmodel.pretrained.compatibility import fit_embeddings
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer
from rewardmodel.training.batching.comparisons import tokenize_comparisons
from rewardmodel.training.batching.layout_choice import choose_layout
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model
from rewardmodel.training.trainer import ComparisonTrainer, decided_groups
from tests.reward_folders import launch, save_adapter

THINGS = ("baker", "bell", "lake", "fox", "boat", "star", "tree", "cat")


def pairs(count: int = 24, **columns: list[Any]) -> Dataset:
    """Pairs of unlike lengths, of which the one with a bell is the better."""
    prompts = [f"Write about the {THINGS[i % 8]} and the {THINGS[i % 5]}.\n" for i in range(count)]
    return Dataset.from_dict(
        {
            "prompt": prompts,
            "chosen": [f"The {THINGS[i % 7]} heard a bell." * (1 + i % 3) for i in range(count)],
            "rejected": [f"The {THINGS[i % 3]} was gone." * (1 + i % 2) for i in range(count)],
            **columns,
        }
    )


def losses_of(
    folder: Path, data: Dataset, out: Path, *, trl: bool = False, **options: Any
) -> list[float]:
    """The training losses, step by step, of one epoch from the same weights."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(str(folder))
    model = load_scorer(str(folder), init_head=True)
    fit_embeddings(model, tokenizer)
    objective = LossConfig(group_by_length=False, **options)
    rows, _ = tokenize_comparisons(data, TextEncoder(tokenizer, 200), objective, seed=0)
    optimization = OptimConfig(learning_rate=3e-3, batch_size=4, epochs=2)
    arguments = RewardConfig(**{**optimization.trainer_arguments(out), "logging_steps": 1})
    layout = choose_layout(model, objective, pad_id=tokenizer.pad_token_id, max_tokens=200,
                           checkpointing=False)  # fmt: skip
    trainer: Any = ComparisonTrainer(
        model=model, train_dataset=rows, layout=layout, objective=objective, args=arguments,
        processing_class=tokenizer,
    )  # fmt: skip
    if trl:
        ids = {
            "chosen_ids": [own[0] for own in rows["sequences"]],
            "rejected_ids": [own[1] for own in rows["sequences"]],
        }
        if "margin" in rows.column_names:
            ids["margin"] = rows["margin"]
        order = trainer._get_train_sampler
        trainer = RewardTrainer(
            model=model, train_dataset=Dataset.from_dict(ids), args=arguments,
            processing_class=tokenizer,
        )  # fmt: skip
        trainer._get_train_sampler = order
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("layout", ["plain", "prefix", "packed"])
def test_the_losses_are_trls_over_training(
    policy_folder: Path, tmp_path: Path, layout: str
) -> None:
    data = pairs(margin=[0.1 * (i % 4) for i in range(24)])
    expected = losses_of(policy_folder, data, tmp_path / "trl", trl=True, layout="plain")
    found = losses_of(policy_folder, data, tmp_path / "ours", layout=layout)
    assert len(found) == 12
    assert max(expected) - min(expected) > 0.05  # it does learn
    # Logged losses are rounded to four digits.
    assert found == pytest.approx(expected, abs=2e-4)


def test_doubts_change_what_is_learned(policy_folder: Path, tmp_path: Path) -> None:
    sure = losses_of(policy_folder, pairs(), tmp_path / "a")
    doubtful = pairs(chosen_probability=[0.6] * 24)
    assert losses_of(policy_folder, doubtful, tmp_path / "b")[-1] > sure[-1] + 0.1


def rankings(count: int = 16) -> Dataset:
    data = pairs(count)
    return Dataset.from_dict(
        {
            "prompt": data["prompt"],
            "responses": [
                [r, c, "A bell."] if i % 2 else [c, r]
                for i, (c, r) in enumerate(zip(data["chosen"], data["rejected"], strict=True))
            ],
            "ranks": [[2, 1, 1] if i % 2 else [1, 2] for i in range(count)],
        }
    )


@pytest.mark.parametrize("kind", ["plackett_luce", "all_pairs"])
def test_rankings_of_unlike_sizes_are_learned(
    policy_folder: Path, tmp_path: Path, kind: Any
) -> None:
    outcome = train_reward_model(
        str(policy_folder),
        rankings(),
        tmp_path / "m",
        optimization=OptimConfig(epochs=6, learning_rate=5e-3, batch_size=4),
        objective=LossConfig(rankings=kind),
    )
    assert outcome["responses"] == 8 * 2 + 8 * 3
    assert outcome["layout"] == "prefix"
    model = load_scorer(str(tmp_path / "m"), init_head=False).eval()
    encoder = TextEncoder(load_tokenizer(str(tmp_path / "m")))
    data = pairs(16)
    with torch.inference_mode():
        good, bad = (
            torch.tensor([
                model(input_ids=torch.tensor([encoder.joined(p, r)])).logits.item()
                for p, r in zip(data["prompt"], data[name], strict=True)
            ])
            for name in ("chosen", "rejected")
        )  # fmt: skip
    assert (good > bad).float().mean() > 0.9


def test_checkpointing_of_activations_trains_packed(policy_folder: Path, tmp_path: Path) -> None:
    outcome = train_reward_model(
        str(policy_folder),
        pairs(8),
        tmp_path / "m",
        optimization=OptimConfig(learning_rate=1e-3, batch_size=4, gradient_checkpointing=True),
    )
    assert outcome["layout"] == "packed"


def test_a_loss_that_is_no_number_ends_training_at_once(
    policy_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    broken = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(policy_folder)
    with torch.no_grad():
        model.model.norm.weight.fill_(3e38)  # finite, but the scores are not
    model.save_pretrained(broken)
    load_tokenizer(str(policy_folder)).save_pretrained(broken)
    with pytest.raises(ValueError, match="training loss is nan at update 1; required: finite"):
        train_reward_model(
            str(broken), pairs(8), tmp_path / "m", optimization=OptimConfig(batch_size=4)
        )
    assert not (tmp_path / "m").exists()


def test_a_checkpoint_of_another_model_is_refused(policy_folder: Path, tmp_path: Path) -> None:
    checkpoints = tmp_path / "trainer"
    optimization = OptimConfig(batch_size=4, save_steps=1, epochs=1)
    checkpoint = checkpoints / "checkpoint-1"
    model = AutoModelForSequenceClassification.from_pretrained(policy_folder, num_labels=2)
    model.save_pretrained(checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(
        ValueError,
        match=r"checkpoint-1 is a checkpoint of another model: its weight score.weight has shape "
        r"\[2, 32\], this model's \[1, 32\]",
    ):
        train_reward_model(
            str(policy_folder), pairs(8), tmp_path / "m", optimization=optimization,
            checkpoints=checkpoints,
        )  # fmt: skip


WORKER = """
import json, os, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from datasets import Dataset
from rewardmodel import LossConfig, OptimConfig, train_reward_model

settings = json.loads(sys.argv[1])
if "dies_at" in settings:  # of one process only, which ends them all
    from rewardmodel.training.trainer import ComparisonTrainer
    original, steps = ComparisonTrainer.training_step, iter(range(1000))
    def dies(self, *args, **kwargs):
        if next(steps) == settings["dies_at"] and os.environ["RANK"] == "1":
            os.kill(os.getpid(), 9)
        return original(self, *args, **kwargs)
    ComparisonTrainer.training_step = dies
data = Dataset.from_json(settings["data"])
outcome = train_reward_model(
    settings["base"], data, Path(settings["out"]),
    optimization=OptimConfig(**settings["optimization"]),
    objective=LossConfig(**settings["objective"]),
)
if os.environ.get("RANK", "0") == "0":
    Path(settings["out"] + ".json").write_text(json.dumps(outcome))
"""


def start(tmp_path: Path, *, processes: int, **settings: Any) -> subprocess.Popen[bytes]:
    pairs(24).to_json(tmp_path / "pairs.jsonl")
    data = str(tmp_path / "pairs.jsonl")
    return launch(WORKER, tmp_path, processes=processes, data=data, **settings)


@pytest.mark.slow  # by default, the test of the commands in two processes does the same
@pytest.mark.parametrize("layout", ["prefix", "plain"])
def test_two_processes_train_the_model_of_one(
    policy_folder: Path, tmp_path: Path, layout: str
) -> None:
    weights, outcomes = [], []
    for processes in (1, 2):
        out = tmp_path / f"of-{processes}"
        settings = {
            "base": str(policy_folder),
            "out": str(out),
            "optimization": {"learning_rate": 2e-3, "batch_size": 8 // processes, "epochs": 2},
            "objective": {"layout": layout, "heads": 1},
        }
        assert start(tmp_path, processes=processes, **settings).wait(timeout=240) == 0, (
            tmp_path / "stderr"
        ).read_text()[-2000:]
        weights.append(load_file(out / "model.safetensors"))
        outcomes.append(json.loads(Path(f"{out}.json").read_text()))
    assert outcomes[0]["updates"] == outcomes[1]["updates"] == 6
    assert outcomes[1]["loss_last"] == pytest.approx(outcomes[0]["loss_last"], abs=2e-4)
    for name, weight in weights[0].items():
        # Adam turns the order of additions into steps of its own where gradients are tiny.
        torch.testing.assert_close(weights[1][name], weight, atol=2e-4, rtol=0, msg=name)


def test_killed_training_ends_with_the_same_weights(policy_folder: Path, tmp_path: Path) -> None:
    optimization = {"learning_rate": 2e-3, "batch_size": 4, "epochs": 3, "save_steps": 2}

    def train(out: Path) -> None:
        options = OptimConfig(**optimization)
        train_reward_model(str(policy_folder), pairs(), out, optimization=options)

    whole, halted = tmp_path / "whole", tmp_path / "halted"
    train(whole)
    killed = start(tmp_path, processes=1, base=str(policy_folder), out=str(halted),
                   optimization=optimization, objective={})  # fmt: skip
    state = tmp_path / "halted-trainer" / "checkpoint-8" / "trainer_state.json"  # second epoch
    deadline = time.monotonic() + 120
    while not state.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "training ended before it could be killed"
    assert not halted.exists()
    train(halted)
    first, second = (load_file(out / "model.safetensors") for out in (whole, halted))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=0, rtol=0, msg=name)


def test_a_weight_that_is_no_number_reaches_no_checkpoint(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, steps = ComparisonTrainer.training_step, iter(range(100))

    def breaks_at_the_second(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, model, *args, **kwargs)
        if next(steps) == 1:
            model.score.weight.grad.fill_(torch.nan)
        return loss

    monkeypatch.setattr(ComparisonTrainer, "training_step", breaks_at_the_second)
    checkpoints = tmp_path / "trainer"
    with pytest.raises(ValueError, match=r"the weight .* is not finite after 2 updates; required"):
        train_reward_model(
            str(policy_folder), pairs(8), tmp_path / "m", checkpoints=checkpoints,
            optimization=OptimConfig(batch_size=4, save_steps=1),
        )  # fmt: skip
    assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-1"]
    assert not (tmp_path / "m").exists()


def test_checkpoints_of_adapters_are_not_taken_for_others(
    policy_folder: Path, tmp_path: Path
) -> None:
    checkpoint = save_adapter(policy_folder, tmp_path / "trainer" / "checkpoint-1", seed=0)
    (checkpoint / "trainer_state.json").write_text("{}")
    for rank in (0, 2):
        with pytest.raises(ValueError, match="checkpoint-1 is a checkpoint of another model"):
            train_reward_model(
                str(policy_folder), pairs(8), tmp_path / "m", checkpoints=tmp_path / "trainer",
                optimization=OptimConfig(batch_size=4, save_steps=1, lora_rank=rank),
            )  # fmt: skip


def test_adapters_go_on_from_their_checkpoint_to_the_same_weights(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OptimConfig(learning_rate=5e-3, batch_size=4, save_steps=2, lora_rank=2)
    train_reward_model(str(policy_folder), pairs(), tmp_path / "whole", optimization=options)
    original, steps = ComparisonTrainer.training_step, iter(range(100))

    def dies_at_the_fourth(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(ComparisonTrainer, "training_step", dies_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            train_reward_model(
                str(policy_folder), pairs(), tmp_path / "halted", optimization=options
            )
    train_reward_model(str(policy_folder), pairs(), tmp_path / "halted", optimization=options)
    first, second = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "halted")
    )
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=0, rtol=0, msg=name)


def test_several_gpus_in_one_process_are_refused(policy_folder: Path, tmp_path: Path) -> None:
    arguments: Any = RewardConfig(**OptimConfig().trainer_arguments(tmp_path))
    arguments._n_gpu = 2
    with pytest.raises(ValueError, match="found 2 GPUs in one process; required: a"):
        ComparisonTrainer(None, pairs(2), layout=None, objective=LossConfig(), args=arguments)  # type: ignore[arg-type]


def test_a_ranking_of_equals_is_no_decision() -> None:
    ranks = torch.tensor([[1, 2, 0], [1, 1, 0], [2, 2, 2], [3, 1, 1]])
    assert decided_groups({"ranks": ranks}).tolist() == [True, False, False, True]
    found = decided_groups({"probability": torch.tensor([1.0, 0.5, 0.7])})
    assert found.tolist() == [True, False, True]


@pytest.mark.slow
def test_two_processes_go_on_to_the_same_weights_after_one_was_killed(
    policy_folder: Path, tmp_path: Path
) -> None:
    def settings(name: str) -> dict[str, Any]:
        optimization = {"learning_rate": 2e-3, "batch_size": 4, "epochs": 3, "save_steps": 2}
        return {"base": str(policy_folder), "out": str(tmp_path / name), "objective": {},
                "optimization": optimization}  # fmt: skip

    assert start(tmp_path, processes=2, **settings("whole")).wait(timeout=240) == 0
    killed = start(tmp_path, processes=2, dies_at=7, **settings("halted"))
    assert killed.wait(timeout=240) != 0
    assert not (tmp_path / "halted").exists()
    assert (tmp_path / "halted-trainer" / "checkpoint-6").is_dir()
    assert start(tmp_path, processes=2, **settings("halted")).wait(timeout=240) == 0
    first, second = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "halted"))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=0, rtol=0, msg=name)

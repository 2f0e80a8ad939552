"""`prefsearch reward train`, end to end: data report, training, baselines, card, upload."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from prefsearch.config.settings import build
from rewardmodel.cli import models as cli_models
from rewardmodel.cli import train as cli_train
from rewardmodel.cli.model_args import RewardTrainArgs, TrainPrmArgs
from rewardmodel.models.loading import load_reward_model
from rewardmodel.models.multi_head import MultiHeadRewardModel
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import center_on, quantized, train_reward_model
from tests.reward_folders import launch, save_classifier, set_json

THINGS = ("baker", "bell", "lake", "fox", "boat", "star", "tree", "cat")
QUICK: dict[str, Any] = {"learning_rate": 5e-3, "batch_size": 8, "epochs": 2}


def rows(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Write about the {THINGS[i % 8]} and the {THINGS[(i // 8) % 5]}.\n",
            "chosen": f"The {THINGS[i % 7]} heard a bell.",
            "rejected": f"The {THINGS[i % 3]} was gone.",
        }
        for i in range(count)
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def settings(policy_folder: Path, tmp_path: Path, **options: Any) -> RewardTrainArgs:
    data = options.pop("dataset", None) or write(tmp_path / "pairs.jsonl", rows())
    return build(RewardTrainArgs, model=str(policy_folder), dataset=data, out=str(tmp_path / "run"),
                    holdout=0.25, **{**QUICK, **options})  # fmt: skip


def test_a_run_reports_on_data_trains_measures_and_writes_a_card(
    policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "pairs.jsonl", [{**row, "rubric": "short"} for row in rows()])
    options: dict[str, Any] = {"dataset": data, "reference": "chosen", "scratch_baseline": True}
    cli_train.train(settings(policy_folder, tmp_path, **options))
    run = tmp_path / "run"
    folder = run / "checkpoints" / "model"
    assert (run / "data" / "data_report.html").is_file()
    printed = capsys.readouterr().out
    assert "Not used: column 'rubric'" in printed
    report = json.loads((run / "data" / "data_report.json").read_text())
    assert report["unused_columns"] == ["rubric"]
    for name in ("reward model", "longer reply", "bag of words", "from scratch"):
        assert name in printed
    card = (folder / "README.md").read_text()
    assert "| seed | 0 |" in card
    assert 'function_to_apply="none"' in card
    assert "zero is the mean score of the demonstrations" in card
    measured = json.loads((run / "steps" / "evaluate.json").read_text())["result"]
    assert f"| this model | {measured['accuracy']['estimate']:.3f} [" in card
    assert set(measured["baselines"]) == {"longer reply", "bag of words", "from scratch"}
    model = load_reward_model(str(folder))
    train = json.loads((run / "steps" / "train.json").read_text())["result"]
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    # Llama's head has no bias, so its zero lies beside the weights.
    assert plain.config.reward_shift == pytest.approx(train["reward_shift"][0])
    prompt, reply = rows()[0]["prompt"], rows()[0]["chosen"]
    with torch.inference_mode():
        logits = plain(input_ids=torch.tensor([model.encoder.joined(prompt, reply)])).logits
    score = model.score([prompt], [reply])
    torch.testing.assert_close(score, logits[0] - plain.config.reward_shift, atol=1e-5, rtol=1e-5)
    # Again it only prints, having nothing left to do.
    cli_train.train(settings(policy_folder, tmp_path, **options, resume=True))
    assert "from scratch" in capsys.readouterr().out


def test_demonstrations_average_zero_whatever_the_head(policy_folder: Path, tmp_path: Path) -> None:
    reference = Dataset.from_dict(
        {"prompt": [r["prompt"] for r in rows()], "completion": [r["chosen"] for r in rows()]}
    )
    tokenizer = load_tokenizer(str(policy_folder))
    torch.manual_seed(0)
    bert = BertForSequenceClassification(
        BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1,
                   num_attention_heads=2, intermediate_size=32, num_labels=1,
                   pad_token_id=tokenizer.pad_token_id)
    )  # fmt: skip
    torch.nn.init.constant_(bert.classifier.bias, 3.0)
    (shift,) = center_on(reference, bert, TextEncoder(tokenizer, 200))
    assert shift > 2
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    model = load_reward_model(str(tmp_path / "bert"), max_length=200)
    scores = model.score(reference["prompt"][:], reference["completion"][:])
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    # In a bias the shift is seen by every reader of the folder.
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert").eval()
    ids = model.encoder.joined(reference[0]["prompt"], reference[0]["completion"])
    with torch.inference_mode():
        assert plain(torch.tensor([ids])).logits.item() == pytest.approx(scores[0].item(), abs=1e-4)
    with pytest.raises(ValueError, match="no demonstrations to center"):
        center_on(reference.select([]), bert, TextEncoder(tokenizer, 200))


def test_demonstrations_that_were_cut_off_are_centered_on_as_such(
    policy_folder: Path, tmp_path: Path
) -> None:
    model = load_reward_model(str(save_classifier(policy_folder, tmp_path / "m", seed=0)))
    prompts, replies = [r["prompt"] for r in rows()], [r["chosen"] for r in rows()]
    expected = {end: model.score(prompts, replies, finished=end).mean() for end in (True, False)}
    assert abs(expected[True] - expected[False]) > 0.01
    marks = [None, *[False] * (len(prompts) - 1)]
    mixed = model.score(prompts, replies, finished=[mark is not False for mark in marks]).mean()
    reference = Dataset.from_dict({"prompt": prompts, "completion": replies, "finished": marks})
    (shift,) = center_on(reference, model.model, model.encoder)
    assert shift == pytest.approx(mixed.item(), abs=1e-4)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_several_heads_are_an_ensemble_on_one_backbone(
    policy_folder: Path, tmp_path: Path, lora_rank: int
) -> None:
    outcome = train_reward_model(
        str(policy_folder),
        Dataset.from_list(rows()),
        tmp_path / "m",
        optimization=OptimConfig(**{**QUICK, "lora_rank": lora_rank, "epochs": 3}),
        objective=LossConfig(heads=3),
        reference=Dataset.from_dict({"prompt": ["A\n", "B\n"], "completion": ["a.", "b."]}),
    )
    assert len(outcome["reward_shift"]) == 3
    model = load_reward_model(str(tmp_path / "m"))
    assert isinstance(model, MultiHeadRewardModel)
    members = model.member_scores([rows()[0]["prompt"]] * 2, ["A bell.", "It was gone."])
    assert members.shape == (3, 2)
    assert len({round(float(lead), 4) for lead in members[:, 0] - members[:, 1]}) == 3
    zero = model.member_scores(["A\n", "B\n"], ["a.", "b."]).mean(1)
    torch.testing.assert_close(zero, torch.zeros(3), atol=1e-5, rtol=0)


def test_heads_cannot_replace_that_of_a_trained_adapter(
    policy_folder: Path, tmp_path: Path
) -> None:
    data = Dataset.from_list(rows(16))
    options = OptimConfig(**{**QUICK, "lora_rank": 2, "epochs": 1})
    train_reward_model(str(policy_folder), data, tmp_path / "a", optimization=options)
    with pytest.raises(ValueError, match="heads: found 2 heads for a trained adapter"):
        train_reward_model(str(tmp_path / "a"), data, tmp_path / "b", optimization=options,
                           objective=LossConfig(heads=2))  # fmt: skip


def test_rankings_are_learned_whole_and_measured_by_their_pairs(
    policy_folder: Path, tmp_path: Path
) -> None:
    ranked = [
        {"prompt": r["prompt"], "responses": [r["rejected"], r["chosen"], "No."],
         "ranks": [2, 1, 3]}
        for r in rows()
    ]  # fmt: skip
    data = write(tmp_path / "ranked.jsonl", ranked)
    cli_train.train(settings(policy_folder, tmp_path, dataset=data, listwise=True))
    steps = tmp_path / "run" / "steps"
    trained = json.loads((steps / "train.json").read_text())["result"]
    assert trained["responses"] == 3 * trained["groups"]
    measured = json.loads((steps / "evaluate.json").read_text())["result"]
    assert measured["pairs"] == 3 * (40 - trained["groups"])


def test_the_folder_is_uploaded_with_its_card(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    sent: dict[str, Any] = {}

    class Commit:
        repo_url = "hub/me/model"

    def upload(self: Any, *, repo_id: str, folder_path: Path) -> Commit:
        sent[repo_id] = sorted(path.name for path in folder_path.iterdir())
        return Commit()

    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **options: sent.update(options))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    cli_train.train(settings(policy_folder, tmp_path, hub_model_id="me/model", epochs=1))
    assert {"README.md", "model.safetensors", "config.json"} <= set(sent["me/model"])
    assert sent["private"] is True


def test_an_upload_that_fails_keeps_the_model_and_says_how_to_go_on(
    policy_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"could not be uploaded to 'me/model'.*--resume"):
        cli_train.train(settings(policy_folder, tmp_path, hub_model_id="me/model", epochs=1))
    assert (tmp_path / "run" / "checkpoints" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_in_4bit": True}, "lora_rank: found 0; required: more than 0 with load_in_4bit"),
        ({"load_in_4bit": True, "load_in_8bit": True, "lora_rank": 4}, "load_in_8bit: found True"),
        ({"heads": 0}, "heads: found 0; required: at least 1"),
        ({"ties": "guess"}, "ties: found 'guess'"),
        ({"label_smoothing": 0.5}, r"label_smoothing: found 0.5; required: in \[0, 0.5\)"),
        ({"layout": "rows"}, "layout: found 'rows'"),
        ({"pack_tokens": 1}, "pack_tokens: found 1; required: at least 8"),
    ],
)
def test_a_wrong_setting_is_named(
    policy_folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        settings(policy_folder, tmp_path, **options)


def test_quantization_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert quantized() == {}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"found no bitsandbytes.*prefsearch\[qlora\]"):
        quantized(load_in_4bit=True)


def test_the_saved_tokenizer_is_the_bases(policy_folder: Path, tmp_path: Path) -> None:
    train_reward_model(str(policy_folder), Dataset.from_list(rows(8)), tmp_path / "m",
                       optimization=OptimConfig(batch_size=8))  # fmt: skip
    first, second = (AutoTokenizer.from_pretrained(f) for f in (policy_folder, tmp_path / "m"))
    assert first.get_vocab() == second.get_vocab()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["load_in_4bit", "load_in_8bit"])
def test_adapters_learn_on_a_base_of_small_integers(
    policy_folder: Path, tmp_path: Path, kind: Any
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (the extra qlora) is not installed")
    outcome = train_reward_model(
        str(policy_folder),
        Dataset.from_list(rows()),
        tmp_path / "m",
        optimization=OptimConfig(**{**QUICK, "lora_rank": 4, "epochs": 3}),
        **{kind: True},
    )
    assert outcome["loss_last"] < 0.5 * outcome["loss_first"]
    scores = load_reward_model(str(tmp_path / "m")).score(
        [rows()[0]["prompt"]] * 2, [rows()[0]["chosen"], rows()[0]["rejected"]]
    )
    assert scores[0] > scores[1]


COMMANDS = """
import json, sys
import torch
torch.set_num_threads(1)
from prefsearch.config.settings import build
from rewardmodel.cli.model_args import RewardTrainArgs, TrainPrmArgs
from rewardmodel.cli.models import train_prm
from rewardmodel.cli.train import train

commands = json.loads(sys.argv[1])
train(build(RewardTrainArgs, **commands["pairs"]))
train_prm(build(TrainPrmArgs, **commands["steps"]))
"""


def test_commands_train_in_two_processes_what_they_do_in_one(
    policy_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(policy_folder, base)
    set_json(base / "config.json", classifier_dropout=0.0)
    steps = [
        {"prompt": row["prompt"], "completions": [row["chosen"], row["rejected"]],
         "labels": [True, i % 3 == 0]}
        for i, row in enumerate(rows())
    ]  # fmt: skip
    # 24 rows to train on: whole updates, since a last short one is filled up with repeated rows.
    shared = {"model": str(base), "holdout": 0.4, "learning_rate": 1e-3}
    datasets = {"pairs": write(tmp_path / "pairs.jsonl", rows()),
                "steps": write(tmp_path / "steps.jsonl", steps)}  # fmt: skip
    folders = ("pairs/checkpoints/model", "pairs/scratch/model", "steps/checkpoints/model")
    weights, trained = [], []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        commands: dict[str, dict[str, Any]] = {
            name: {**shared, "dataset": data, "out": str(out / name), "batch_size": 8 // processes}
            for name, data in datasets.items()
        }
        commands["pairs"]["scratch_baseline"] = True
        if processes == 1:
            cli_train.train(build(RewardTrainArgs, **commands["pairs"]))
            cli_models.train_prm(build(TrainPrmArgs, **commands["steps"]))
        else:
            running = launch(COMMANDS, tmp_path, processes=2, **commands)
            assert running.wait(timeout=240) == 0, (tmp_path / "stderr").read_text()[-2000:]
        weights += [load_file(out / folder / "model.safetensors") for folder in folders]
        trained.append(json.loads((out / "pairs" / "steps" / "train.json").read_text())["result"])
        for name in datasets:
            assert (out / name / "steps" / "evaluate.json").is_file()
    assert trained[0]["updates"] == trained[1]["updates"]
    assert trained[1]["loss_last"] == pytest.approx(trained[0]["loss_last"], abs=2e-4)
    for one, two in zip(weights[:3], weights[3:], strict=True):
        for name, weight in one.items():
            # Adam turns the order of additions into steps of its own where gradients are tiny.
            torch.testing.assert_close(two[name], weight, atol=2e-4, rtol=0, msg=name)


@pytest.mark.slow
def test_the_cli_trains_in_two_processes_and_measures_in_one(
    policy_folder: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = write(tmp_path / "pairs.jsonl", rows())
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--master_addr", "127.0.0.1", "--master_port", str(port), "-m", "prefsearch",
        "reward", "train", "--model", str(policy_folder), "--dataset", data, "--holdout", "0.25",
        "--batch_size", "4", "--learning_rate", "5e-3", "--epochs", "2", "--reference", "chosen",
        "--out", str(tmp_path / "run"), "--save_steps", "2",
    ]  # fmt: skip
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Held-out accuracy") == 1
    assert (tmp_path / "run" / "steps" / "evaluate.json").is_file()
    assert not (tmp_path / "run" / "trainer").exists()

"""The command as a user types it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from atari_bridge.cli.evaluate import EvaluateJob
from prefsearch.cli import entry
from prefsearch.cli.command_line import field_help, parse
from rewardmodel.cli.train import TrainJob

ROOT = Path(__file__).resolve().parent.parent


def test_help_lists_commands_without_loading_torch() -> None:
    code = (
        "import sys; from prefsearch.cli import entry; entry.main(['--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    for name in entry.COMMANDS:
        assert f"  {name} " in done.stdout
    assert "rewardmodel/train_demo" in done.stdout


@pytest.mark.parametrize(
    "argv", [["sing"], ["reward", "sing"], ["policy", "sing"], ["atari", "sing"]]
)
def test_an_unknown_word_ends_with_code_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(argv) == 2
    assert "'sing'" in capsys.readouterr().err


def test_the_door_of_games_opens_without_loading_transformers() -> None:
    """Games need none of it, and it costs seconds."""
    code = (
        "import sys\nfrom prefsearch.cli import entry\n"
        "try: entry.main(['atari', 'train', '--help'])\n"
        "finally: print('loaded', {'transformers', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--evaluate_every" in done.stdout
    assert "loaded set()" in done.stdout


@pytest.mark.parametrize("door", ["reward", "policy", "atari"])
def test_each_verb_explains_every_flag(door: str) -> None:
    import importlib

    verbs = importlib.import_module(entry.COMMANDS[door][0]).COMMANDS
    for config, _ in verbs.values():
        described = field_help(config)
        missing = set(config.__dataclass_fields__) - set(described)
        assert not missing, f"{config.__name__} does not explain {missing}"


def test_an_unknown_setting_in_a_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("model: x\ndataset: y\nlearning_rat: 0.1\n")
    assert entry.main(["reward", "train", "--config", str(path)]) == 2
    assert "unknown setting learning_rat" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate: fast", "learning_rate: found 'fast' (str); required: float"),
        ("on_bad_row: maybe", "on_bad_row: found 'maybe' (str); required: one of 'error', 'skip'"),
        ("batch_size: 2.5", "batch_size: found 2.5 (float); required: int"),
        ("holdout: 1", "holdout: found 1; required: in (0, 1)"),
    ],
)
def test_a_wrong_value_in_a_file_is_named(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"model: x\ndataset: y\n{line}\n")
    assert entry.main(["reward", "train", "--config", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_flag_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("model: x\ndataset: y\nepochs: 3\n")
    arguments = ["--config", str(path), "--epochs", "5"]
    assert parse(TrainJob, arguments, prog="x").epochs == 5.0
    assert parse(TrainJob, arguments[:2], prog="x").epochs == 3


def test_null_on_the_command_line_takes_back_what_the_file_sets(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("checkpoint: runs/x\nmax_decisions: 10\nthreads: 1\n")
    arguments = ["--config", str(path), "--max_decisions", "null", "--threads", "2"]
    parsed = parse(EvaluateJob, arguments, prog="x")
    assert (parsed.max_decisions, parsed.threads) == (None, 2)


def test_a_missing_configuration_lists_the_shipped_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert entry.main(["reward", "train", "--config", "no/such"]) == 2
    assert "rewardmodel/train_demo" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(entry.shipped_configurations()))
def test_each_shipped_configuration_is_accepted_and_opens_with_its_command(name: str) -> None:
    import importlib

    path = entry.shipped_configurations()[name]
    text = path.read_text()
    command = re.match(r"# prefsearch (\w+)(?: (\w+))? --config ([\w/]+)", text)
    assert command, f"{name} does not open with its command"
    assert command[3] == name
    assert "Hardware:" in text
    assert "Result:" in text
    if command[1] == "demo":
        from policies.demo import DemoConfig as config
    else:
        config, _ = importlib.import_module(entry.COMMANDS[command[1]][0]).COMMANDS[command[2]]
    parsed = parse(config, ["--config", str(path)], prog="x")
    for key, value in yaml.safe_load(text).items():
        assert getattr(parsed, key) == value


def test_reward_doors_train_and_evaluate_alike(
    tmp_path: Path, policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "pairs.jsonl"
    prompts = [f"Write a short story about the baker, the {o} and the lake.\n" for o in "abcdefgh"]
    rows = [{"prompt": p, "chosen": "The bell rang.", "rejected": "No. No."} for p in prompts]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    common = ["--dataset", str(data), "--holdout", "0.25"]
    train = ["reward", "train", "--model", str(policy_folder), *common, "--out"]
    flags = ["--batch_size", "4", "--learning_rate", "1e-3"]
    assert entry.main([*train, str(tmp_path / "run"), *flags]) == 0
    model = tmp_path / "run" / "checkpoints" / "model"
    out = tmp_path / "found.json"
    evaluate = ["reward", "evaluate", "--model", str(model), *common, "--out", str(out)]
    assert entry.main(evaluate) == 0
    trained = json.loads((tmp_path / "run" / "steps" / "evaluate.json").read_text())["result"]
    measured = json.loads(out.read_text())
    assert measured["accuracy"] == trained["accuracy"]
    assert measured["pairs"] == trained["pairs"]
    capsys.readouterr()
    assert entry.main([*train, str(tmp_path / "run"), *flags]) == 2
    assert "--resume" in capsys.readouterr().err
    assert entry.main([*train, str(tmp_path / "run"), *flags, "--resume", "true"]) == 0


def test_policy_doors_from_demonstrations_to_a_report(tmp_path: Path, policy_folder: Path) -> None:
    world = tmp_path / "world"
    sizes = ["--demonstrations", "40", "--prompts", "6"]
    assert entry.main(["reward", "world", "--out", str(world), *sizes]) == 0
    sft = tmp_path / "sft"
    told = ["--dataset", str(world / "demonstrations.jsonl"), "--hidden_size", "32"]
    small = ["--layers", "1", "--vocabulary", "400", "--batch_size", "8", "--epochs", "0.4"]
    assert entry.main(["policy", "sft", *told, *small, "--out", str(sft)]) == 0
    policy = str(sft / "checkpoints" / "model")
    asked = [
        "--policy",
        policy,
        "--dataset",
        str(world / "prompts.jsonl"),
        "--max_new_tokens",
        "12",
    ]
    samples, pairs = str(tmp_path / "samples.jsonl"), str(tmp_path / "pairs.jsonl")
    assert entry.main(["policy", "sample", *asked, "--out", samples]) == 0
    assert entry.main(["reward", "label", "--responses", samples, "--out", pairs]) == 0
    reward = tmp_path / "reward"
    flags = ["--model", policy, "--dataset", pairs, "--holdout", "0.4", "--out", str(reward)]
    assert entry.main(["reward", "train", *flags]) == 0
    against = [*asked, "--reward_model", str(reward / "checkpoints" / "model")]
    head = str(tmp_path / "value")
    assert entry.main(["policy", "value", *against, "--out", head]) == 0
    against += ["--value_head", head, "--budget", "3"]
    planned = tmp_path / "planned.jsonl"
    assert entry.main(["policy", "plan", *against, "--out", str(planned)]) == 0
    assert len(planned.read_text().splitlines()) == 6
    tuned = tmp_path / "tuned"
    assert entry.main(["policy", "finetune", *against, "--out", str(tuned)]) == 0
    assert (tuned / "checkpoints" / "model" / "model.safetensors").is_file()
    run = tmp_path / "evaluate"
    ladder = [
        "--methods",
        "beam",
        "gumbel_muzero",
        "--budgets",
        "2",
        "--pool",
        "4",
        "--gold",
        "simulated",
    ]
    assert entry.main(["policy", "evaluate", *against, *ladder, "--out", str(run)]) == 0
    assert (run / "report.html").stat().st_size > 10_000
    methods = {row["method"] for row in json.loads((run / "summary.json").read_text())}
    assert methods == {"best-of-N", "beam search", "MCTS (Gumbel)"}


def test_a_prompt_longer_than_the_context_is_named_and_may_be_skipped(
    tmp_path: Path, policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "prompts.jsonl"
    prompts = ["Tell me of the bell.\n", "the bell and the lake " * 100]
    data.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    argv = ["policy", "sample", "--policy", str(policy_folder), "--dataset", str(data)]
    argv += ["--max_new_tokens", "8", "--out", str(tmp_path / "out.jsonl")]
    assert entry.main(argv) == 2
    assert "prompt 1 has" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    assert entry.main([*argv, "--on_long_prompt", "skip"]) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_pairs_are_split_by_prompt(tmp_path: Path) -> None:
    data = tmp_path / "pairs.csv"
    lines = [f"ask {i // 2},good {i},bad {i}" for i in range(40)]
    data.write_text("\n".join(["prompt,chosen,rejected", *lines]))
    out = tmp_path / "split"
    argv = ["reward", "split", "--dataset", str(data), "--holdout", "0.25", "--out", str(out)]
    assert entry.main(argv) == 0
    parts = [
        [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "test")
    ]
    assert [len(part) for part in parts] == [30, 10]
    assert not {row["prompt"] for row in parts[0]} & {row["prompt"] for row in parts[1]}
    assert json.loads((out / "data_report.json").read_text())["pairs"] == 40

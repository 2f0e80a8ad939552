"""The command as a user types it."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from atari_bridge.cli.args import AtariEvaluateArgs
from prefsearch.cli import entry
from prefsearch.cli.command_line import parse
from prefsearch.cli.commands import COMMANDS
from prefsearch.config.checks import _hints
from prefsearch.config.settings import Setting, flatten, settings_of_class
from rewardmodel.cli.model_args import RewardTrainArgs
from tests.settings_classes import commands

ROOT = Path(__file__).resolve().parent.parent


def test_help_lists_commands_and_shipped_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in printed
    assert "rewardmodel/train_demo" in printed


@pytest.mark.parametrize(
    "argv", [["sing"], ["reward", "sing"], ["policy", "sing"], ["atari", "sing"]]
)
def test_an_unknown_word_ends_with_code_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(argv) == 2
    assert "'sing'" in capsys.readouterr().err


HEAVY = {"torch", "transformers", "trl", "datasets", "scipy", "matplotlib", "accelerate", "numba"}
LOADED = f"print('loaded', {HEAVY} & set(sys.modules))"


def run_in_process(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


ANSWERS = [
    ("reward train --help", 0, "--learning_rate"),
    ("policy plan --help", 0, "--leaves_per_step"),
    ("atari train --help", 0, "--evaluate_every"),
    ("tree show --help", 0, "--max_depth"),
    ("policy plan --no_such", 2, "unrecognized arguments: --no_such"),
    ("reward trian", 2, "unknown subcommand 'trian'"),
    ("reward train --model m --dataset d --seed one", 2, "--seed: found 'one'"),
    ("reward train --model m --dataset none.jsonl", 2, "none.jsonl does not exist"),
    ("reward score --model package:no_such/m --dataset d", 2, "no installed package 'no_such'"),
    ("atari play --checkpoint none --out o", 2, "checkpoint: found 'none'"),
    ("tree show none.safetensors", 2, "none.safetensors"),
]


def test_help_and_mistakes_are_answered_without_heavy_imports() -> None:
    printed = run_in_process(
        "import sys; sys.stderr = sys.stdout\nfrom prefsearch.cli import entry\n"
        f"for words in {[words for words, _, _ in ANSWERS]}:\n"
        "  try: code = entry.main(words.split())\n"
        "  except SystemExit as ended: code = ended.code\n"
        f"  print('code', code); {LOADED}"
    )
    answers = printed.split("loaded set()\n")
    for answer, (words, code, message) in zip(answers, [*ANSWERS, ("", 0, "")], strict=True):
        assert message in answer, words
        assert answer.endswith(f"code {code}\n" if words else ""), words


def test_the_help_of_every_command_explains_every_flag_without_heavy_imports() -> None:
    printed = run_in_process(
        "import sys\nfrom prefsearch.cli.command_line import parse\n"
        "from prefsearch.cli.commands import COMMANDS\n"
        "from prefsearch.config.settings import settings_of_class\n"
        "for group in COMMANDS.values():\n"
        "  for command in group.subcommands.values():\n"
        "    args = command.load_args()\n"
        "    for one in settings_of_class(args).values(): assert one.help, (args, one)\n"
        "    try: parse(args, ['--help'], prog='x')\n"
        f"    except SystemExit: pass\n{LOADED}"
    )
    assert printed.endswith("loaded set()\n")


def test_the_base_is_imported_without_torch() -> None:
    printed = run_in_process(
        "import importlib, pkgutil, sys, prefsearch\n"
        "for found in pkgutil.walk_packages(prefsearch.__path__, 'prefsearch.'):\n"
        "  if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "print('loaded', {'torch', 'transformers', 'accelerate'} & set(sys.modules))"
    )
    assert printed.endswith("loaded set()\n")


def test_every_command_leads_to_a_function() -> None:
    for group in COMMANDS.values():
        for command in group.subcommands.values():
            assert callable(command.load_run())


def test_a_setting_that_several_parts_share_has_one_default_and_one_type() -> None:
    for config in commands().values():
        parts = [config, *filter(dataclasses.is_dataclass, _hints(config).values())]
        found: dict[str, Setting] = {}
        for one in parts:
            for name, setting in settings_of_class(one).items():
                first = found.setdefault(name, setting)
                same = name == "search_batch_size" or first.default == setting.default
                assert (first.hint, same) == (setting.hint, True), (config, name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat: 0.1", "unknown setting learning_rat"),
        ("learning_rate: fast", "learning_rate: found 'fast' (str); required: float"),
        ("on_bad_row: maybe", "on_bad_row: found 'maybe' (str); required: one of 'error', 'skip'"),
        ("batch_size: 2.5", "batch_size: found 2.5 (float); required: int"),
        ("holdout: 1", "holdout: found 1; required: in (0, 1)"),
    ],
)
def test_a_wrong_line_in_a_file_is_named(
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
    assert parse(RewardTrainArgs, arguments, prog="x").optim.epochs == 5.0
    assert parse(RewardTrainArgs, arguments[:2], prog="x").optim.epochs == 3


def test_null_on_the_command_line_takes_back_what_the_file_sets(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("checkpoint: runs/x\nmax_decisions: 10\nthreads: 1\n")
    arguments = ["--config", str(path), "--max_decisions", "null", "--threads", "2"]
    parsed = parse(AtariEvaluateArgs, arguments, prog="x")
    assert (parsed.max_decisions, parsed.threads) == (None, 2)


def test_a_missing_configuration_lists_the_shipped_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["reward", "train", "--config", "no/such"]) == 2
    assert "rewardmodel/train_demo" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(entry.shipped_configurations()))
def test_each_shipped_configuration_is_accepted_and_opens_with_its_command(name: str) -> None:
    path = entry.shipped_configurations()[name]
    text = path.read_text()
    command = re.match(r"# prefsearch (\w+)(?: (\w+))? --config ([\w/]+)", text)
    assert command, f"{name} does not open with its command"
    assert command[3] == name
    assert "Hardware:" in text
    assert "Result:" in text
    config = COMMANDS[command[1]].subcommands[command[2] or ""].load_args()
    parsed = flatten(parse(config, ["--config", str(path)], prog="x"))
    for key, value in yaml.safe_load(text).items():
        assert parsed[key] == value or list(parsed[key]) == value


def test_reward_train_and_evaluate_agree(
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


def test_policy_commands_from_demonstrations_to_a_report(tmp_path: Path, undrawn: None) -> None:
    world = tmp_path / "world"
    sizes = ["--demonstrations", "40", "--prompts", "6"]
    assert entry.main(["reward", "world", "--out", str(world), *sizes]) == 0
    sft = tmp_path / "sft"
    shown = ["--dataset", str(world / "demonstrations.jsonl"), "--hidden_size", "32"]
    small = ["--layers", "1", "--vocabulary", "400", "--batch_size", "8", "--epochs", "0.4"]
    assert entry.main(["policy", "sft", *shown, *small, "--out", str(sft)]) == 0
    policy = str(sft / "checkpoints" / "model")
    common = ["--policy", policy, "--dataset", str(world / "prompts.jsonl")]
    common += ["--max_new_tokens", "12"]
    samples, pairs = str(tmp_path / "samples.jsonl"), str(tmp_path / "pairs.jsonl")
    assert entry.main(["policy", "sample", *common, "--out", samples]) == 0
    assert entry.main(["reward", "label", "--responses", samples, "--out", pairs]) == 0
    reward = tmp_path / "reward"
    flags = ["--model", policy, "--dataset", pairs, "--holdout", "0.4", "--out", str(reward)]
    assert entry.main(["reward", "train", *flags]) == 0
    against = [*common, "--reward_model", str(reward / "checkpoints" / "model")]
    head = str(tmp_path / "value")
    assert entry.main(["policy", "value", *against, "--out", head]) == 0
    against += ["--value_head", head]
    searched = [*against, "--budget", "3"]
    planned = tmp_path / "planned.jsonl"
    assert entry.main(["policy", "plan", *searched, "--out", str(planned)]) == 0
    assert len(planned.read_text().splitlines()) == 6
    tuned = tmp_path / "tuned"
    assert entry.main(["policy", "finetune", *searched, "--out", str(tuned)]) == 0
    assert (tuned / "checkpoints" / "model" / "model.safetensors").is_file()
    run = tmp_path / "evaluate"
    sweep = ["--methods", "beam", "gumbel", "--budgets", "2", "--pool", "4", "--gold", "simulated"]
    assert entry.main(["policy", "evaluate", *against, *sweep, "--out", str(run)]) == 0
    assert (run / "report.html").is_file()
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

"""Mistakes on a command line: one line and exit code 2."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from atari_bridge.cli.args import AtariPlayArgs
from policies.cli.args import PlanArgs
from policies.cli.evaluate_args import PolicyEvaluateArgs
from prefsearch.cli import entry
from prefsearch.cli.command_line import parse
from prefsearch.cli.entry import run_command
from prefsearch.config.settings import settings_of_class
from rewardmodel.cli.model_args import RewardTrainArgs
from tests.fakes import local_command
from tests.settings_classes import VALUES, commands

GIVEN = {
    "reward train": ["--model", "m", "--dataset", "d"],
    "policy evaluate": ["--policy", "p", "--dataset", "d", "--reward_model", "r"],
    "atari play": ["--checkpoint", "c", "--out", "o"],
}


def run(*argv: str) -> tuple[int, str]:
    """The exit code and the errors of a command line whose command would do nothing."""
    command = local_command(commands()[argv[0]], lambda args: None)
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = run_command(f"prefsearch {argv[0]}", command, argv[1:])
    return code, errors.getvalue()


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("reward train", ["--dataset_name", "x"], "--dataset_name; did you mean --dataset?"),
        ("reward train", ["--Model", "x"], "--Model; did you mean --model?"),
        ("reward train", ["--learning-rat=1"], "--learning-rat; did you mean --learning_rate?"),
        ("reward train", ["--zzz"], "unrecognized arguments: --zzz; `prefsearch reward train --h"),
        ("reward train", ["-m", "x"], "unrecognized arguments: -m"),
        ("reward train", ["--"], "unrecognized arguments: --"),
        ("reward train", ["--batch", "4"], "--batch; did you mean --batch_size?"),
        ("reward train", ["--epoch=4"], "--epoch; did you mean --epochs?"),
        ("reward train", ["d.jsonl"], "'d.jsonl' after --dataset, which has its value; required"),
        ("reward train", ["--seed", "1", "2"], "found the word '2' after --seed, which has"),
        ("reward train", ["--no_hub_private", "x"], "found the word 'x' after --no_hub_private"),
        ("reward train", ["--seed"], "--seed: found nothing after it; required: a value"),
        ("reward train", ["--seed", "--bf16"], "--seed: found nothing after it"),
        ("reward train", ["--seed", "1", "--seed", "2"], "--seed: found twice, with '1' and '2'"),
        ("reward train", ["--seed=1", "--seed=1"], "--seed: found twice"),
        ("reward train", ["--max-length=9", "--max_length", "8"], "found twice, with '9' and '8'"),
        ("reward train", ["--bf16", "--bf16", "false"], "found twice, with no value and 'false'"),
        ("reward train", ["--hub_private", "--no_hub_private"], "--no_hub_private: found twice"),
        ("reward train", ["--no_hub_private=x"], "--no_hub_private: found 'x'; required: the flag"),
        ("reward train", ["--help=x"], "--help: found 'x'; required: the flag alone"),
        ("reward train", ["--config"], "--config: found nothing after it; required: a value"),
        ("reward train", ["--config", "--seed", "1"], "--config: found nothing after it"),
        ("reward train", ["--config", "a", "--config=b"], "--config: found twice, with 'a' and"),
        ("reward train", ["--seed", "one"], "--seed: found 'one'; required: int"),
        ("reward train", ["--seed", "9" * 5000], "--seed: found '99999"),
        ("reward train", ["--seed", "1e300"], "--seed: found '1e300'; required: int"),
        ("reward train", ["--seed", "-1"], "seed: found -1; required: 0 or more"),
        ("reward train", ["--seed", "1_000"], "--seed: found '1_000'; required: int"),
        ("reward train", ["--seed", "٣"], "--seed: found '٣'; required: int"),
        ("reward train", ["--seed", "010"], "--seed: found '010'; required: int"),
        ("reward train", ["--seed", " 8"], "--seed: found ' 8'; required: int"),
        ("reward train", ["--epochs", "1_0.5"], "--epochs: found '1_0.5'; required: float"),
        ("policy evaluate", ["--budgets", "4", "1_0"], "--budgets: found '1_0'; required: a list"),
        ("policy evaluate", ["--temp", "1"], "did you mean --temperature?"),
        ("policy evaluate", ["--reward", "m"], "did you mean --reward_model?"),
        ("policy evaluate", ["--"], "unrecognized arguments: --; `prefsearch"),
        ("reward train", ["--epochs", "nan"], "epochs: found nan; required: more than 0"),
        ("reward train", ["--epochs", "-inf"], "epochs: found -inf; required: more than 0"),
        ("reward train", ["--epochs", "x"], "--epochs: found 'x'; required: float"),
        ("reward train", ["--weight_decay", "-1e-3"], "weight_decay: found -0.001; required: 0"),
        ("reward train", ["--limit", "-1"], "limit: found -1; required: at least 1, or null"),
        ("reward train", ["--limit", "null", "--seed", "null"], "--seed: found 'null'; required"),
        ("reward train", ["--bf16", "perhaps"], "--bf16: found 'perhaps'; required: bool"),
        ("reward train", ["--ties", "lots"], "--ties: found 'lots'; required: one of 'half'"),
        ("reward train", ["--out", "a\0b"], r"found 'a\x00b'; required: text in UTF-8"),
        ("reward train", ["--out", "\udcff"], r"found '\udcff'; required: text in UTF-8"),
        ("policy evaluate", ["--budgets", "4", "nan"], "--budgets: found 'nan'; required: a list"),
        ("policy evaluate", ["--budgets", "4", "-1"], "budgets: found [4, -1]; required: each at"),
        ("policy evaluate", ["--budgets", "4", "--budgets", "8"], "write all values behind one"),
        ("policy evaluate", ["--budgets"], "--budgets: found nothing after it"),
        ("policy evaluate", ["--temperature", "-.5"], "temperature: found -0.5; required: at"),
        ("policy evaluate", ["--delimiter", "-foo"], "write --delimiter=-foo"),
        ("policy evaluate", ["--leaf", "x"], "--leaf: found 'x'; required: one of 'partial'"),
        (
            "atari play",
            ["--save_trees_at", "0", "-3"],
            "save_trees_at: found [0, -3]; required: each 0",
        ),
    ],
)
def test_a_slip_is_one_line_and_code_2(command: str, words: list[str], message: str) -> None:
    code, errors = run(command, *GIVEN[command], *words)
    assert code == 2
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert len(errors) < 1000


def test_an_unknown_flag_is_named_before_a_missing_one_is_asked_for() -> None:
    for command in commands():
        code, errors = run(command, "--no_such_flag", "x")
        assert code == 2
        assert "unrecognized arguments: --no_such_flag" in errors, command
        assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rewrad", "train"], "unknown command 'rewrad'; did you mean reward? choose one of demo"),
        (["reward", "trian"], "unknown subcommand 'trian'; did you mean train? choose one of"),
        (["policy", "plans"], "unknown subcommand 'plans'; did you mean plan?"),
        (["atari", "\ud800"], "unknown subcommand '\\ud800'; choose one of"),
        (["tree", "shwo"], "unknown subcommand 'shwo'; did you mean show? choose one of show"),
        (["tree", "show", "f", "--max-dept", "3"], "--max-dept; did you mean --max_depth?"),
        (["tree", "show", "f", "--row", "1", "--row=2"], "--row: found twice, with '1' and '2'"),
        (["tree", "show", "f", "g"], "found the word 'g' after FILE, which has its value"),
        (["reward", "train", "--config=none"], "--config: found 'none', no file and no shipped"),
        (["reward", "train", "--config", "a", "--config", "b"], "--config: found twice, with 'a'"),
        (["demo", "--config=a", "--config", "demo"], "--config: found twice, with 'a' and"),
        (["reward", "train", "--config", "a\0"], "no file and no shipped configuration"),
    ],
)
def test_an_unknown_word_is_named_with_the_nearest(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(argv) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_values_may_begin_with_a_minus_and_lists_take_several() -> None:
    argv = ["--policy", "p", "--dataset", "d", "--reward_model", "r", "--delimiter=--", "--stop"]
    job = parse(PolicyEvaluateArgs, [*argv, "a", "- b", "--budgets", "4", "8"], prog="x")
    assert (job.proposal.delimiter, job.proposal.stop, job.budgets) == ("--", ("a", "- b"), [4, 8])
    argv = ["--policy", "p", "--dataset", "d", "--reward_model", "r", "--leaf", "null"]
    assert parse(PlanArgs, argv, prog="x").leaf is None


def test_a_file_of_arguments_beside_the_program_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prefsearch.args").write_text("--seed 7")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "prefsearch")])
    assert parse(RewardTrainArgs, ["--model", "m", "--dataset", "d"], prog="x").optim.seed == 0


def test_help_wins_over_slips_and_shows_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(AtariPlayArgs, ["--zzz", "--help"], prog="x")
    assert ended.value.code == 0
    errors = " ".join(capsys.readouterr().out.split())
    assert "(default: 1; required: at least 1 (at most 1,000,000,000))" in errors


NAMES = st.sampled_from(
    [(c, name) for c, kind in commands().items() for name in settings_of_class(kind)]
)
WORDS = st.one_of(
    st.sampled_from(["--seed", "--out", "--config", "--zzz", "-x", "--", "nan", "1e300", "-1"]),
    st.sampled_from(["9" * 5000, "\ud800", "a\0", "null", "true", "--limit=-1", "--help=1", ""]),
    st.text(max_size=8),
)


def check_line(command: str, words: list[str], values: dict[str, Any], path: Path) -> None:
    """A command line and a file: taken, or refused in one line."""
    assume(not {"-h", "--help"} & set(words))
    text = ""
    with contextlib.suppress(ValueError, yaml.YAMLError):  # a huge integer, a lone surrogate
        text = yaml.safe_dump(values)
        path.write_text(text, encoding="utf-8")
    code, errors = run(command, *words, *(["--config", str(path)] if text else []))
    assert code in (0, 2)
    assert errors.count("\n") == (1 if code else 0), errors
    assert len(errors) < 2500


LINE = st.fixed_dictionaries(
    {
        "case": NAMES,
        "value": VALUES,
        "words": st.lists(WORDS, max_size=4),
        "others": st.dictionaries(st.text(max_size=5), VALUES, max_size=2),
    }
)


@settings(
    max_examples=100,
    derandomize=True,
    deadline=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=LINE)
def test_any_command_line_and_file_are_taken_or_refused_in_one_line(
    line: dict[str, Any], tmp_path: Path
) -> None:
    (command, name), words = line["case"], [f"--{line['case'][1]}", *line["words"]]
    check_line(command, words, {name: line["value"], **line["others"]}, tmp_path / "my.yaml")


@pytest.mark.slow
@settings(
    max_examples=4_000,
    deadline=10_000,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=LINE, named=st.booleans())
def test_command_lines_and_files_are_taken_or_refused_in_one_line_at_length(
    line: dict[str, Any], named: bool, tmp_path: Path
) -> None:
    command, name = line["case"]
    words = [f"--{name}"] if named else []
    values = {name: line["value"], **line["others"]}
    check_line(command, [*words, *line["words"]], values, tmp_path / "my.yaml")

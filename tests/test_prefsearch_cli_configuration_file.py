"""What a file behind `--config` may hold, and how what it may not is named."""

import os
import time
from pathlib import Path

import pytest

from atari_bridge.cli.args import AtariEvaluateArgs
from prefsearch.cli.command_line import parse
from prefsearch.cli.configuration_file import read_configuration, read_float
from rewardmodel.cli.model_args import RewardTrainArgs

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(
    f"c{i}: &c{i} [{', '.join(['*b'] * 9)}]\n" for i in range(9)
)


def write(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "my.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        ("", "", "found nothing; required: a mapping of settings"),
        ("# only\n", "", "found nothing"),
        ("- model\n", "", "found a list; required: a mapping"),
        ("model\n", "", "found a single value; required: a mapping"),
        ("model: a\nmodel: b\n", ", line 2", "model stands in line 1, too; required: once"),
        ("model: m\nlearning_rat: 1\n", ", line 2", "unknown setting learning_rat; did you mean"),
        ("3: x\n", ", line 1", "unknown setting 3"),
        ("on: x\n", ", line 1", "unknown setting True"),
        ("[a]: x\n", ", line 1", "unknown setting ['a']"),
        ("{a: 1}: x\n", ", line 1", "unknown setting {'a': 1}"),
        ("model: m\nenv: {LD_PRELOAD: x}\n", ", line 2", "found env; required: settings alone"),
        ("model: m\nepochs: .nan\n", ", line 2", "epochs: found nan; required: more than 0"),
        ("epochs: .inf\n", ", line 1", "epochs: found inf; required: more than 0"),
        ("epochs: nan\n", ", line 1", "epochs: found nan; required: more than 0"),
        ("epochs: 1e300\n", ", line 1", "epochs: found 1e+300; required: more than 0"),
        ("epochs: -5\n", ", line 1", "epochs: found -5; required: more than 0"),
        ("epochs: true\n", ", line 1", "epochs: found True (bool); required: float"),
        ("epochs: [1]\n", ", line 1", "epochs: found [1] (list); required: float"),
        ("epochs: {a: 1}\n", ", line 1", "epochs: found {'a': 1} (dict); required: float"),
        ("epochs: null\n", ", line 1", "epochs: found None (NoneType); required: float"),
        ("epochs: 2020-01-01\n", ", line 1", "epochs: found datetime.date(2020, 1, 1) (date)"),
        ("batch_size: 1e3\n", ", line 1", "batch_size: found '1e3' (str); required: int"),
        (f"seed: {'9' * 5000}\n", ", line 1", "which cannot be read"),
        (f"seed: {'9' * 50}\n", ", line 1", "seed: found 9999999"),
        ("out: 2020-99-99\n", ", line 1", "found '2020-99-99', which cannot be read"),
        ('out: "a\\0"\n', ", line 1", r"out: found 'a\x00'; required: text without NUL"),
        ('out: "\\ud800"\n', ", line 1", r"out: found '\ud800'; required: text without NUL"),
        ("out: !!binary aGk=\n", ", line 1", "out: found b'hi' (bytes); required: str"),
        (b"model: \xff\n", ", line 1", "found no UTF-8"),
        (b"a: 1\nmodel: \x00\n", ", line 2", r"found the character '\x00'"),
        (bytes(range(256)), ", line 2", "found no UTF-8"),
        ("a: b: c\n", ", line 1", "mapping values are not allowed here"),
        ("model: 'm\n", ", line 2", "found unexpected end of stream"),
        ("model: m\n---\nmodel: n\n", ", line 2", "but found another document"),
        ("model: !!python/name:os.system x\n", ", line 1", "could not determine a constructor"),
        ("model: !!python/object/apply:os.system [id]\n", ", line 1", "could not determine"),
        (BOMB, ", line 2", "found the alias *a; write the value out"),
        ("base: &b {a: 1}\n<<: *b\n", ", line 2", "found the alias *b"),
        ("<<: {model: m}\n", ", line 1", "could not determine a constructor"),
        ("a: " + "[" * 10_000, "", "nested too deeply"),
        ("[" * 100_000, "", "nested too deeply"),
        ("- " * 20_000, "", "nested too deeply"),
        ("model: " + "m" * 300_000, "", "required: a YAML file of at most"),
    ],
)
def test_a_bad_file_is_named_in_one_line(
    content: str | bytes, where: str, message: str, tmp_path: Path
) -> None:
    path, began = write(tmp_path, content), time.monotonic()
    with pytest.raises(ValueError, match=r".") as caught:
        read_configuration(path, RewardTrainArgs)
    told = str(caught.value)
    assert f"{path}{where}: " in told
    assert message in told
    assert "\n" not in told
    assert len(told) < 1500
    assert time.monotonic() - began < 10


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    kinds = {
        str(tmp_path): "a folder",
        str(fifo): "a pipe",
        "/dev/zero": "a device",
        str(tmp_path / "none.yaml"): "No such file",
        str(tmp_path / ("x" * 300)): "File name too long",
    }
    for path, message in kinds.items():
        with pytest.raises(ValueError, match=f"--config {path}: .*{message}"):
            read_configuration(path, RewardTrainArgs)


def test_a_file_changes_no_environment_variable(tmp_path: Path) -> None:
    path = write(tmp_path, "env: {PREFSEARCH_TEST: x}\nmodel: m\n")
    with pytest.raises(ValueError, match="found env"):
        parse(RewardTrainArgs, ["--config", path], prog="x")
    assert "PREFSEARCH_TEST" not in os.environ


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, "learning_rate: 1e-3\nmodel: 1e5\ndataset: d\nmax_length: null\n")
    job = parse(RewardTrainArgs, ["--config", path], prog="x")
    assert (job.optim.learning_rate, job.model, job.optim.max_length) == (1e-3, "1e5", None)
    path = write(tmp_path, "checkpoint: c\nbudgets: ['4', 8]\n")
    assert parse(AtariEvaluateArgs, [f"--config={path}"], prog="x").budgets == [4, 8]


def test_a_mark_of_byte_order_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbfmodel: m\n")
    assert read_configuration(path, RewardTrainArgs) == {"model": "m"}


ODD = ["010", "00", "1_0", "0x10", "0b11", "0o7", "1:30", "-1:30", "٣", "+0_1", "1:30.5", "0_1.5"]


@pytest.mark.parametrize("written", [*ODD, "!!int '010'", "!!int 0x1F", "!!float '1_0.5'", "'1_0'"])
@pytest.mark.parametrize("setting", ["seed", "epochs"])
def test_a_number_is_read_as_written_or_not_at_all(
    setting: str, written: str, tmp_path: Path
) -> None:
    path = write(tmp_path, f"model: m\n{setting}: {written}\n")
    with pytest.raises(ValueError, match=r"line 2.*found '") as caught:
        read_configuration(path, RewardTrainArgs)
    assert written.split()[-1].strip("'") in str(caught.value)


@pytest.mark.parametrize("written", ODD)
def test_what_is_no_plain_number_is_text(written: str, tmp_path: Path) -> None:
    assert (
        read_configuration(write(tmp_path, f"model: {written}\n"), RewardTrainArgs)["model"]
        == written
    )


@pytest.mark.parametrize(
    ("written", "number"),
    [("1.5", 1.5), ("+3", 3), (".5", 0.5), ("2.", 2.0), ("1.5e+1", 15.0), ("2e0", 2.0), ("0", 0)],
)
def test_plain_numbers_are_numbers(written: str, number: float, tmp_path: Path) -> None:
    found = read_configuration(write(tmp_path, f"weight_decay: {written}\n"), RewardTrainArgs)
    assert found == {"weight_decay": number}
    assert read_float(written) == number

"""A mistake costs nothing: the corrected command works with the same `--out`."""

import json
from pathlib import Path

import pytest

from prefsearch.cli import entry
from prefsearch.run.directory import RunDirectory, remove_unused_runs
from tests.reward_folders import save_adapter, save_classifier

PROMPTS = [f"Write of the bell, the lake and number {i}.\n" for i in range(6)]


@pytest.fixture
def desk(
    tmp_path: Path, policy_folder: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> Path:
    """A folder with prompts, preferences, a reward model and gold scorers."""
    rows = [{"prompt": p} for p in PROMPTS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": p, "chosen": "The bell rang.", "rejected": "No."} for p in PROMPTS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "judges.py").write_text(
        "import os\ncalls = 0\n"
        "def good(prompts, responses):\n    return [1.0] * len(responses)\n"
        "def late(prompts, responses):\n"
        "    global calls\n    calls += 1\n"
        "    if calls == 2 and os.path.exists('tired'):\n"
        "        raise RuntimeError('the judge is tired')\n"
        "    return [1.0] * len(responses)\n"
    )
    save_classifier(policy_folder, tmp_path / "reward", seed=1)
    save_adapter(tmp_path / "reward", tmp_path / "adapter", seed=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: object) -> int:
    return entry.main([str(word) for word in words])


def evaluation(policy: Path, gold: str, *words: object) -> list[object]:
    return [
        "policy", "evaluate", "--policy", policy, "--reward_model", "reward",
        "--dataset", "prompts.jsonl", "--methods", "gumbel_muzero", "--budgets", 2, "--pool", 2,
        "--max_new_tokens", 6, "--segment_tokens", 3, "--gold", f"python:judges.py:{gold}",
        "--out", "run", *words,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "mistake",
    [
        ["--model", "no/such/model"],
        ["--dataset", "none.jsonl"],
        ["--reference", "none.jsonl"],
        ["--prompt_column", "question"],
        ["--lora_rank", "2", "--lora_target_modules", "nothing"],
        ["--heads", "2", "--model", "adapter"],
        ["--epochs", "nan"],
        ["--model", "README"],
    ],
)
def test_the_corrected_command_trains_in_the_same_folder(
    desk: Path, policy_folder: Path, mistake: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "README").mkdir()
    right = {"--model": policy_folder, "--dataset": "pairs.jsonl", "--holdout": 0.4, "--out": "run"}
    flags = {**right, **dict(zip(mistake[::2], mistake[1::2], strict=True))}
    assert run("reward", "train", *(word for pair in flags.items() for word in pair)) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not (desk / "run").exists()
    # The folder is as free as before: the corrected command is not told of another run.
    RunDirectory.open(desk / "run", {"corrected": True}, resume=False)


@pytest.mark.parametrize(
    "mistake",
    [["--model", "reward"], ["--model", "no/such"], ["--model", "README", "--vocabulary", "300"]],
)
def test_a_model_that_is_none_leaves_no_run_of_fine_tuning(desk: Path, mistake: list[str]) -> None:
    (desk / "README").mkdir()
    assert run("policy", "sft", "--dataset", "pairs.jsonl", "--out", "run", *mistake) == 2
    assert not (desk / "run").exists()


def test_what_was_recorded_before_a_gold_scorer_fails_is_kept_and_gone_on_with(
    desk: Path, policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = evaluation(policy_folder, "late", "--search_batch_size", 2)
    (desk / "tired").touch()
    assert run(*command) == 2
    (desk / "tired").unlink()
    errors = capsys.readouterr().err
    assert "the judge is tired" in errors
    assert "late" in errors
    assert len((desk / "run" / "data" / "pool.jsonl").read_text().splitlines()) == 2
    assert run(*command, "--resume", "true") == 0


def test_data_and_models_that_changed_are_refused_when_a_run_goes_on(
    desk: Path, policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = evaluation(policy_folder, "good", "--resume", "true")
    assert run(*command) == 0
    before = {p: p.read_bytes() for p in (desk / "run").rglob("*.json*") if "owner" not in p.name}
    for change, named in (
        (lambda: (desk / "judges.py").write_text("good = None\ndef good(p, r): return r"), "gold"),
        (lambda: save_classifier(policy_folder, desk / "reward", seed=2), "reward_model"),
        (
            lambda: (desk / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n'),
            "dataset",
        ),
    ):
        kept = {p: p.read_bytes() for p in desk.iterdir() if p.is_file()}
        model = {p: p.read_bytes() for p in (desk / "reward").iterdir()}
        change()
        capsys.readouterr()
        assert run(*command) == 2
        errors = capsys.readouterr().err
        assert f"what {named} names" in " ".join(errors.split())
        assert "has changed since the run began" in " ".join(errors.split())
        for path, data in {**kept, **model}.items():
            path.write_bytes(data)
    assert {p: p.read_bytes() for p in before} == before
    assert run(*command) == 0


def test_only_runs_of_this_process_that_recorded_nothing_are_withdrawn(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path / "old", {}, resume=False)
    remove_unused_runs()  # of which nobody holds the object any more
    assert (tmp_path / "old").is_dir()
    used = RunDirectory.open(tmp_path / "used", {}, resume=False)
    used.finish("first", {})
    unused = RunDirectory.open(tmp_path / "unused", {}, resume=False)
    again = RunDirectory.open(tmp_path / "old", {}, resume=True)
    (tmp_path / "mine").mkdir()
    mine = RunDirectory.open(tmp_path / "mine", {}, resume=False)
    remove_unused_runs()
    assert [run.path.is_dir() for run in (used, unused, again)] == [True, False, True]
    assert list(mine.path.iterdir()) == []


def test_a_search_that_fails_leaves_no_trees_behind(desk: Path, policy_folder: Path) -> None:
    command = [
        "policy", "plan", "--policy", policy_folder, "--dataset", "prompts.jsonl",
        "--reward_model", "python:judges.py:late", "--method", "gumbel_muzero", "--budget", 2,
        "--max_new_tokens", 6, "--segment_tokens", 3, "--search_batch_size", 2,
        "--save_trees", "trees", "--out", "planned.jsonl",
    ]  # fmt: skip
    (desk / "tired").touch()
    assert run(*command) == 2
    (desk / "tired").unlink()
    assert not (desk / "planned.jsonl").exists()
    assert run(*command) == 0
    assert any((desk / "trees").iterdir())

"""A run that is killed at any moment and resumed ends as one that was not."""

import json
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest

from prefsearch.run import directory as run_directory
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.files import append_record, write_json_atomic
from prefsearch.storage.folders import new_folder
from tests.fakes import MICRO_DEMO
from tests.killed_runs import differences, in_child, left_by
from tests.reward_folders import save_classifier
from tests.run_sweeps import DAMAGES, chosen, sweep_command
from tests.test_atari_parallel import CARTPOLE

TEXT = ("policies.demo", "policies.cli.train", "policies.cli.evaluate", "policies.cli.search",
        "rewardmodel.cli.train", "rewardmodel.cli.models", "trl", "peft", "datasets")  # fmt: skip
PROMPTS = [f"Write of the bell, the lake and number {i}.\n" for i in range(4)]


def flags(**settings: object) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def work_in(out: Path) -> int:
    """A run of three steps, with records, files, a folder that is replaced and a growing file."""
    run = RunDirectory.open(out, {"size": 3}, resume=True, inputs={"data": "digest"})
    if run.result("first") is None:
        run.finish("first", {"loss": 1.0}, records=[{"prompt": i} for i in range(3)])
    for number in range(2):
        if run.result(f"model-{number}") is None:
            with run.folder("model") as scratch:
                (scratch / "config.json").write_text(json.dumps({"number": number}))
                (scratch / "weights").write_bytes(bytes(range(256)))
            run.finish(f"model-{number}", {"number": number})
    if run.result("cell") is None:
        path = run.path / "data" / "cell.jsonl"
        done = len(path.read_text().split("\n")) - 1 if path.is_file() else 0
        for prompt in range(done, 3):
            append_record(path, {"prompt": prompt})
        run.finish("cell", {"prompts": 3}, records=[{"prompt": 7}], files=[path])
    with new_folder(out / "beside") as scratch:
        write_json_atomic(scratch / "config.json", {"made": "again"})
    return 0


def test_a_run_that_is_killed_before_any_event_of_the_file_system_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which asks git for the commit, at each of some two hundred starts.
    monkeypatch.setattr(run_directory, "environment", lambda: {"versions": {}})
    log = tmp_path / "log.txt"
    status, events = in_child(lambda: work_in(tmp_path / "whole"), tmp_path / "whole", log)
    assert status == 0, log.read_text()
    assert events > 60
    expected = left_by(tmp_path / "whole")
    for number in range(1, events + 1):
        out, torn = tmp_path / f"killed-{number}", number % 3 == 0
        status, _ = in_child(lambda out=out: work_in(out), out, log, at=number, torn=torn)
        assert status == -9
        model = out / "checkpoints" / "model"
        assert not (out / "steps" / "model-0.json").exists() or (model / "weights").is_file()
        assert in_child(lambda out=out: work_in(out), out, log)[0] == 0, log.read_text()
        assert differences(left_by(out), expected) == [], f"killed before event {number}"


def test_a_kill_while_a_model_is_replaced_leaves_the_old_or_the_new_one_whole(
    tmp_path: Path,
) -> None:
    def replace(folder: Path, text: str) -> int:
        with new_folder(folder / "model") as scratch:
            (scratch / "config.json").write_text(text)
            (scratch / "model.safetensors").write_text(text)
        return 0

    log, seen, number = tmp_path / "log.txt", set[str](), 0
    status = -9
    while status == -9:
        number += 1
        folder = tmp_path / f"kill-{number}"
        replace(folder, "old")
        status, _ = in_child(lambda folder=folder: replace(folder, "new"), folder, log, at=number)
        held = {path.read_text() for path in (folder / "model").iterdir()}
        assert held in ({"old"}, {"new"}), f"killed before event {number}"
        seen |= held
        replace(folder, "next")
        assert [path.name for path in folder.iterdir()] == ["model"]
    assert status == 0
    assert number > 8
    assert seen == {"old", "new"}


def test_kills_are_spread_over_all_events() -> None:
    assert len(chosen(10, None)) == 20
    few = chosen(100, 8)
    assert len({number for number, _ in few}) == 8
    assert min(few)[0] < 10 and max(few)[0] > 90  # noqa: PT018


@pytest.fixture
def desk(tmp_path: Path, policy_folder: Path) -> Path:
    """A folder with prompts, preferences and a reward model."""
    rows = [{"prompt": p, "answer": i} for i, p in enumerate(PROMPTS)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {"prompt": f"{p}{i}\n", "chosen": "The bell rang at the lake.", "rejected": "No."}
        for i in range(4)
        for p in PROMPTS
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "the_judge.py").write_text(
        "def judge(prompts, responses):\n    return [float(len(r) % 3) for r in responses]\n"
    )
    save_classifier(policy_folder, tmp_path / "reward", seed=1)
    return tmp_path


def check(found: list[dict[str, Any]]) -> None:
    assert found[0]["status"] == 0, found[0]["log"]
    assert len(found) > 2
    assert [one for one in found[1:] if one["problems"]] == []


def imports_of(name: str) -> tuple[str, ...]:
    """The modules that a command spends its start on."""
    if name != "atari":
        return TEXT
    pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")
    return ("atari_bridge.cli.train",)


def command_of(name: str, policy: Path) -> list[str]:
    """A small run of a command."""
    searched = flags(
        policy=policy, reward_model="reward", dataset="prompts.jsonl", max_new_tokens=8,
        segment_tokens=4, search_batch_size=2,
    )  # fmt: skip
    trained = flags(batch_size=4, learning_rate=1e-3, save_steps=1)
    commands = {
        "evaluate": ["policy", "evaluate", *searched,
                     *flags(methods="gumbel_muzero", budgets=2, pool=2, gold="the_judge:judge")],
        "finetune": ["policy", "finetune", *searched,
                     *flags(method="gumbel_muzero", budget=2), *trained],
        "sft": ["policy", "sft", *flags(model=policy, dataset="pairs.jsonl"), *trained],
        "reward": ["reward", "train", *flags(model=policy, dataset="pairs.jsonl", holdout=0.3),
                   *trained],
        "demo": ["demo", *flags(**MICRO_DEMO)],
        "atari": ["atari", "train", *flags(**{**CARTPOLE, "total_decisions": 80,
                                              "learning_starts": 40})],
    }  # fmt: skip
    return commands[name]


@pytest.mark.parametrize(("name", "kills"), [("evaluate", 5), ("reward", 5)])
def test_a_command_that_is_killed_and_resumed_ends_as_if_it_had_not_been(
    desk: Path, policy_folder: Path, name: str, kills: int
) -> None:
    check(sweep_command(command_of(name, policy_folder), desk, kills=kills, imports=TEXT))


def may_mount() -> bool:
    """Whether a disk can be mounted in a namespace of its own."""
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "x",
        "/mnt",
    ]
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("reward", [0.3, 0.6, 0.95]),
        pytest.param("evaluate", [0.1, 0.4, 0.7, 0.95], marks=pytest.mark.slow),
        pytest.param("sft", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95], marks=pytest.mark.slow),
        pytest.param("finetune", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95], marks=pytest.mark.slow),
        pytest.param("demo", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95], marks=pytest.mark.slow),
        pytest.param("atari", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95], marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_space(
    desk: Path, policy_folder: Path, name: str, sizes: list[float]
) -> None:
    if not may_mount():
        pytest.skip("no disk can be mounted here")
    command = command_of(name, policy_folder)
    imports = imports_of(name)
    check(sweep_command(command, desk, kills=sizes, imports=imports, mode="fill"))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("evaluate", len(DAMAGES)),
        *(
            pytest.param(name, None, marks=pytest.mark.slow)
            for name in ("evaluate", "finetune", "sft", "reward", "demo", "atari")
        ),
    ],
)
def test_a_damaged_file_of_a_run_is_named_or_changes_nothing(
    desk: Path, policy_folder: Path, name: str, count: int | None
) -> None:
    command, imports = command_of(name, policy_folder), imports_of(name)
    check(sweep_command(command, desk, kills=count, imports=imports, mode="spoil"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate", "finetune", "sft", "reward", "demo", "atari"])
def test_every_command_that_is_killed_before_any_event_ends_as_if_it_had_not_been(
    desk: Path, policy_folder: Path, name: str
) -> None:
    command = command_of(name, policy_folder)
    # A demo takes half a minute, each of its steps a second or two.
    mode: Literal["steps", "kill"] = "steps" if name == "demo" else "kill"
    check(sweep_command(command, desk, kills=None, imports=imports_of(name), mode=mode))

"""`prefsearch policy evaluate`, whole: kills, several processes, bad input, what it leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matplotlib.figure import Figure

from policies.cli.evaluate_args import PolicyEvaluateArgs
from policies.cli.loading import SearchModels, search_models, searcher_for
from policies.finetuning.samples import sample_responses
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import SegmentTree
from policies.planning.leaf_values import PartialReward, Rollout
from policies.planning.scoring import TreeScorer
from policies.planning.segment_rewards import KLPenalty, ProcessReward, SummedRewards
from policies.planning.value_head import ValueHead
from prefsearch.cli import entry
from prefsearch.cli.command_line import parse
from prefsearch.run.directory import step_seed
from rewardmodel.models.loading import load_reward_model
from tests.fakes import CountingReward, save_blank
from tests.reward_folders import save_classifier

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = [f"Write of the bell, the lake and number {i}.\n" for i in range(7)]
JUDGE = """
import os, signal, time
calls = 0
def judge(prompts, responses):
    global calls
    calls += 1
    if os.environ.get("SLOW") == os.environ.get("RANK", "0"):
        time.sleep(0.3)
    if os.environ.get("KILLED_AT") == f"{os.environ.get('RANK', 0)}:{calls}":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("BROKEN_AT") == f"{os.environ.get('RANK', 0)}:{calls}":
        return [float("nan")] * len(responses)
    return [float(len(text) % 2) for text in responses]
def nan(prompts, responses):
    return [float("nan") if prompt.endswith("4.\\n") else 0.0 for prompt in prompts]
def few(prompts, responses):
    return [0.0] * (len(responses) - 1)
def text(prompts, responses):
    return "good"
not_callable = 3
"""


@pytest.fixture(scope="module")
def reward_folder(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(policy_folder, tmp_path_factory.mktemp("models") / "reward", seed=1)


def write_rows(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def files(
    policy_folder: Path, reward_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Prompts, a gold scorer and settings; seven prompts make four batches."""
    folder = tmp_path_factory.mktemp("files")
    rows = [{"prompt": p, "answer": i} for i, p in enumerate(PROMPTS)]
    write_rows(folder / "prompts.jsonl", *rows)
    (folder / "the_judge.py").write_text(JUDGE)
    settings: dict[str, Any] = {
        "policy": str(policy_folder), "reward_model": str(reward_folder),
        "dataset": "prompts.jsonl", "methods": ["gumbel_muzero"], "budgets": [2], "pool": 4,
        "max_new_tokens": 10, "segment_tokens": 4, "search_batch_size": 2,
        "gold": "the_judge:judge",
    }  # fmt: skip
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture
def desk(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> Iterator[Path]:
    """A folder of its own to work in, with a copy of the files."""
    desk = Path(shutil.copytree(files, tmp_path / "desk"))
    monkeypatch.chdir(desk)
    sys.modules.pop("the_judge", None)
    yield desk
    sys.modules.pop("the_judge", None)


@pytest.fixture(scope="module")
def runs(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three evaluations, of a seed each, on the same prompts."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(files)
        patch.setattr(Figure, "savefig", save_blank)
        for seed in "012":
            assert evaluate(str(folder / f"seed-{seed}"), "--seed", seed) == 0
    sys.modules.pop("the_judge", None)
    return folder


@pytest.fixture
def evaluated(desk: Path, runs: Path) -> Path:
    """A folder to work in that holds the three evaluations."""
    return Path(shutil.copytree(runs, desk, dirs_exist_ok=True))


def evaluate(out: str, *flags: str) -> int:
    command = ["policy", "evaluate", "--config", "settings.yaml", "--out", out, *flags]
    return entry.main(command)


def start(launcher: list[str], out: str, *flags: str, **environment: str) -> Any:
    command = [*launcher, "policy", "evaluate", "--config", "settings.yaml"]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [*command, "--out", out, *flags], env=known, capture_output=True, text=True, timeout=300
    )


SAVEFIG = Figure.savefig
ALONE = [sys.executable, "-m", "prefsearch"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
       "-m", "prefsearch"]  # fmt: skip
# Two processes that torch is imported for once, two times one after the other.
FORKED = [sys.executable, "-c", """
import os, socket, sys
from policies.cli import evaluate
from prefsearch.cli import entry

def run_as(rank, port):
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code = entry.main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)

for _ in range(2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = [os.fork() or run_as(rank, port) for rank in "01"]
    print("ended with", [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
"""]  # fmt: skip


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if k != "seconds"}
    return [untimed(item) for item in value] if isinstance(value, list) else value


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def left(out: str) -> dict[str, Any]:
    """All that a run left, but for seconds."""
    files = ["records.jsonl", "data/pool.jsonl", "data/search-gumbel_muzero-2.jsonl"]
    found = {name: untimed(lines(Path(out) / name)) for name in files}
    found["summary"] = untimed(json.loads((Path(out) / "summary.json").read_text()))
    found["tree"] = json.loads(
        (Path(out) / "data" / "search-gumbel_muzero-2.tree.json").read_text()
    )
    found["data"] = sorted(path.name for path in (Path(out) / "data").iterdir())
    return found


def combine(out: str, *runs: str) -> int:
    return entry.main(["policy", "combine", "--out", out, "--runs", *runs])


def test_evaluations_of_several_seeds_are_combined_with_intervals_over_seeds(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert combine("both", "seed-1", "seed-2") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "over 2 seeds of 7 prompts, 7 prompts in several seeds" in printed
    assert "nothing is known of models that were trained with another seed" in printed
    alone = [json.loads((evaluated / f"seed-{s}" / "summary.json").read_text()) for s in (1, 2)]
    both = json.loads((evaluated / "both" / "summary.json").read_text())
    assert len(both) == len(alone[0])
    for one, two, row in zip(*alone, both, strict=True):
        means = [one["proxy"]["estimate"], two["proxy"]["estimate"]]
        assert row["proxy"]["by_seed"] == pytest.approx(means)
        assert row["proxy"]["estimate"] == pytest.approx(sum(means) / 2)
        assert row["proxy"]["clusters"] == [7, 7]
    page = (evaluated / "both" / "report.html").read_text()
    assert page.count("over 2 seeds of 7 prompts") >= 3
    assert "comparison" in page


def test_what_is_no_second_seed_is_not_combined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = {"seed": 0, "gold": "simulated", "max_new_tokens": 10, "policy": "p"}
    made: dict[str, dict[str, Any]] = {
        "one": base,
        "again": base,
        "batches": {**base, "search_batch_size": 3, "max_rows": 9},
        "fewer": {**base, "limit": 3, "budgets": [2], "pool": 4},
        "other": {**base, "seed": 1, "max_new_tokens": 9},
        "several": {**base, "seed": 1, "segment_tokens": 8, "value_scale": 5.0, "limit": 3},
        "headed": {**base, "seed": 1, "value_head": "head"},
        "elsewhere": {**base, "seed": 1, "dataset": "b.jsonl"},
    }
    for name, settings in made.items():
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "summary.json").write_text("[]")
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(settings))
        (tmp_path / name / "data" / "prompts.json").write_text(json.dumps([name]))
    for runs, message in (
        (["one", "again"], "have the same seed, models and prompts, so they are one sample"),
        (["one", "batches"], "have the same seed, models and prompts, so they are one sample"),
        (["one", "fewer"], "have the same seed, models and prompts, so they are one sample"),
        (["one", "one"], "name each folder once"),
        (["one", "other"], "evaluated with different settings: max_new_tokens 10 and 9; required"),
        (["one", "several"], "settings: segment_tokens 64 and 8, value_scale None and 5.0; req"),
        (["one", "headed"], "different settings: value_head None and 'head'"),
        (["one", "elsewhere"], "dataset '' and 'b.jsonl'; required: the same. Leave one out, or "
         "evaluate it again. Prompts of different files are combined with --other_prompts"),
        (["one", "nowhere"], "nowhere holds no summary.json"),
        (["one"], "at least 2 folders"),
    ):  # fmt: skip
        assert combine("out", *runs) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_one_evaluation_in_other_batches_or_from_another_folder_is_no_second_seed(
    evaluated: Path, policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("batches", "--seed", "1", "--search_batch_size", "3") == 0
    assert combine("out", "seed-1", "batches") == 2
    assert "so they are one sample" in " ".join(capsys.readouterr().err.split())
    shutil.copytree(policy_folder, "copy")
    assert evaluate("copied", "--seed", "1", "--policy", "copy") == 0
    assert combine("out", "seed-1", "copied") == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "have the same scores and tokens at every prompt" in printed
    assert combine("out", "seed-1", "seed-2") == 0


def test_cells_that_only_some_runs_have_are_named(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("more", "--seed", "3", "--budgets", "4", "--pool", "8") == 0
    capsys.readouterr()
    assert combine("out", "seed-1", "more") == 0
    printed = " ".join(capsys.readouterr().out.split())
    page = " ".join((evaluated / "out" / "report.html").read_text().split())
    for shown in (printed, page):
        assert "Left out, since not every run has them: MCTS (Gumbel), 2 (only in seed-1)" in shown
        assert "best-of-8 (only in more)" in shown
    rows = json.loads((evaluated / "out" / "summary.json").read_text())
    assert [(row["method"], row["budget"]) for row in rows] == [("best-of-N", n) for n in "124"]


def test_scores_of_several_reward_models_are_not_averaged_without_gold(
    evaluated: Path, reward_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(reward_folder, "other_reward")
    for out, seed, flags in (
        ("bare-1", "1", ()),
        ("bare-2", "2", ()),
        ("bare-3", "3", ("--reward_model", "other_reward")),
    ):
        assert evaluate(out, "--seed", seed, "--gold", "null", *flags) == 0
    assert evaluate("judged", "--seed", "3", "--reward_model", "other_reward") == 0
    capsys.readouterr()
    assert combine("out", "bare-1", "bare-3") == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "found 2 reward models" in printed
    assert "Evaluate with --gold, or combine runs of one reward model" in printed
    assert combine("one-model", "bare-1", "bare-2") == 0
    assert combine("gold", "seed-1", "judged") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "proxies are means over scores of different scales: compare gold" in printed


def test_prompts_of_other_files_are_combined_where_that_is_asked_for(evaluated: Path) -> None:
    rows = [{"prompt": f"Write of the key and number {i}.\n"} for i in range(5)]
    write_rows(evaluated / "more.jsonl", *rows)
    shutil.copy("prompts.jsonl", "same.jsonl")
    assert evaluate("same", "--seed", "3", "--dataset", "same.jsonl") == 0
    assert evaluate("own", "--seed", "3", "--dataset", "more.jsonl") == 0
    assert combine("out", "seed-1", "same") == 0
    assert combine("refused", "seed-1", "own") == 2
    assert combine("own-prompts", "seed-1", "own", "--other_prompts", "true") == 0
    row = json.loads((evaluated / "own-prompts" / "summary.json").read_text())[0]
    assert row["proxy"]["prompts"] == [7, 5]
    assert row["proxy"]["shared"] == 0


def test_a_prompt_that_stands_twice_is_one_sample(desk: Path) -> None:
    write_rows(desk / "twice.jsonl", *({"prompt": p} for p in [*PROMPTS, *PROMPTS]))
    assert evaluate("twice", "--dataset", "twice.jsonl", "--gold", "simulated") == 0
    row = json.loads((desk / "twice" / "summary.json").read_text())[0]
    assert (row["proxy"]["prompts"], row["proxy"]["clusters"]) == ([14], [7])
    assert row["proxy"]["degrees"] == 6


def test_a_run_killed_in_the_middle_of_a_cell_ends_with_the_same_records(evaluated: Path) -> None:
    # Four batches of the pool, then the third of the search.
    killed = start(ALONE, "killed", KILLED_AT="0:7")
    assert killed.returncode == -signal.SIGKILL
    cell = evaluated / "killed" / "data" / "search-gumbel_muzero-2.jsonl"
    assert [line["prompt"] for line in lines(cell)] == [0, 1, 2, 3]
    before = [{k: v for k, v in line.items() if k != "checksum"} for line in lines(cell)]
    with cell.open("a") as file:
        file.write('{"prompt": 4, "respon')  # a kill in the middle of a line
    assert not (evaluated / "killed" / "report.html").exists()
    assert evaluate("killed") == 2, "not without --resume"
    assert evaluate("killed", "--resume", "true") == 0
    assert left("killed") == left("seed-0")
    assert lines(cell)[:4] == before, "what was done was not done again, seconds included"
    assert len(left("seed-0")["records.jsonl"]) == 7 * (3 + 1)


def test_the_pool_is_what_the_policy_samples_by_itself(desk: Path, policy: Policy) -> None:
    assert evaluate("alone", "--methods", "best_of_n") == 0
    proposal = job(desk).proposal
    seed = step_seed(0, "pool")
    samples = sample_responses(policy, PROMPTS, 4, proposal=proposal, seed=seed)
    kept = lines(desk / "alone" / "data" / "pool.jsonl")
    assert [line["texts"] for line in kept] == samples.texts
    assert [line["tokens"] for line in kept] == samples.tokens
    assert len({tuple(row) for row in samples.texts}) == 7, "prompts differ"
    records = lines(desk / "alone" / "records.jsonl")
    for record in records:
        mean = sum(samples.tokens[record["prompt"]]) / 4
        assert record["tokens"] == pytest.approx(int(record["budget"]) * mean)


def test_two_processes_give_the_records_of_one_and_print_once(evaluated: Path) -> None:
    ended = start(FORKED, "shared", SLOW="1")  # the main process waits
    codes = [line for line in ended.stdout.splitlines() if line.startswith("ended with")]
    assert codes == ["ended with [0, 0]", "ended with [2, 2]"], ended.stderr
    assert ended.stdout.count("What test-time search gains") == 1
    assert left("shared") == left("seed-0")
    assert ended.stderr.count("Continue that run with --resume") == 1, "of the main process"


@pytest.mark.slow
def test_what_two_processes_left_when_one_was_killed_is_finished_by_one(evaluated: Path) -> None:
    # Each process has two batches of the pool and two of the search.
    killed = start(TWO, "killed", KILLED_AT="1:4")
    assert killed.returncode != 0
    data = evaluated / "killed" / "data"
    assert [x["prompt"] for x in lines(data / "search-gumbel_muzero-2.rank-1.jsonl")] == [2, 3]
    assert evaluate("killed", "--resume", "true") == 0
    assert left("killed") == left("seed-0"), "no file of the other process is left either"


def test_an_error_in_one_process_ends_all_and_is_named(desk: Path) -> None:
    broken = start(TWO, "broken", BROKEN_AT="1:1")
    assert broken.returncode != 0
    assert "scored row 2 as nan" in broken.stderr
    assert not (desk / "broken" / "records.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample", "plan", "finetune"])
def test_other_commands_share_their_prompts_too(name: str, desk: Path) -> None:
    settings = yaml.safe_load((desk / "settings.yaml").read_text())
    known = {"policy", "reward_model", "dataset", "max_new_tokens", "segment_tokens"}
    known -= {"reward_model"} if name == "sample" else set()
    flags = [w for key in known for w in (f"--{key}", str(settings[key]))]
    flags += ["--search_batch_size", "2"]
    found = []
    for out, launcher in (("two", TWO), ("one", ALONE)):
        command = [*launcher, "policy", name, *flags, "--out", out]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        path = desk / out / "searched.jsonl" if name == "finetune" else desk / out
        found.append(untimed(lines(path)))
    assert found[0] == found[1]
    assert len(found[0]) == 7 or name == "finetune"
    if name == "finetune":
        assert (desk / "two" / "checkpoints" / "model" / "model.safetensors").is_file()


def test_one_process_starts_nothing_of_torch_distributed(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch.distributed, "init_process_group", refuse)
    monkeypatch.setattr(torch.distributed, "barrier", refuse)
    monkeypatch.delitem(sys.modules, "accelerate.state", raising=False)
    assert evaluate("alone") == 0
    assert not torch.distributed.is_initialized()


def test_every_method_is_measured_and_what_was_left_explains_itself(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Figure, "savefig", SAVEFIG)
    assert evaluate("all", "--methods", "all") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "95 % intervals over 7 prompts of one seed; nothing is known of other seeds" in printed
    rows = json.loads((desk / "all" / "summary.json").read_text())
    found = {(row["method"], row["budget"]) for row in rows}
    searches = (
        "speculative rejection", "beam search", "DVTS", "MCTS (MuZero)", "MCTS (Gumbel)",
        "controlled decoding",
    )  # fmt: skip
    assert found == (
        {("best-of-N", n) for n in "124"}
        | {(m, n) for m in ("majority vote", "weighted best-of-N") for n in "24"}
        | {(m, "2") for m in searches}
    )
    for row in rows:
        assert row["tokens"] > 0
        assert row["model_tokens"] == pytest.approx(row["forward_tokens"] + row["scored_tokens"])
        assert row["gold"]["low"] <= row["gold"]["estimate"] <= row["gold"]["high"]
        assert (row["pass_at_k"] is not None) == (row["method"] == "best-of-N"), "gold is 0 or 1"
        assert (row["kl"] is None) == (row["method"] == "controlled decoding")
        assert (row["kl_low"] is not None) == (row["method"] in searches)
    assert (desk / "all" / "figures" / "tree.html").stat().st_size > 1000
    for name in ("gains", "gains_model_tokens", "best_of_n"):
        for suffix in (".png", ".svg"):
            assert (desk / "all" / "figures" / name).with_suffix(suffix).stat().st_size > 1000
    page = (desk / "all" / "report.html").read_text()
    for words in ("How to read this", "How far from the policy", "refused:", "accuracy (gold)",
                  "pass@N", "What it cost", "configuration", "environment"):  # fmt: skip
        assert words in page
    pool = lines(desk / "all" / "data" / "pool.jsonl")
    assert set(pool[0]) == {
        "prompt", "texts", "tokens", "log_probabilities", "finished", "proxy", "gold",
        "prompt_tokens", "scored_tokens", "seconds",
    }  # fmt: skip


def test_exact_match_with_reference_answers_is_a_judge(desk: Path) -> None:
    assert evaluate("answers", "--gold", "answers:prompts.jsonl", "--answer_form", "number") == 0
    write_rows(desk / "few.jsonl", {"prompt": "Who?", "answer": "me"})
    assert evaluate("none", "--gold", "answers:few.jsonl") == 2
    assert not (desk / "none").exists(), "found before anything is searched"


def test_without_a_judge_the_proxy_alone_is_reported(desk: Path) -> None:
    text = (desk / "settings.yaml").read_text().replace("gold: the_judge:judge", "gold: null")
    (desk / "settings.yaml").write_text(text)
    assert evaluate("alone") == 0
    rows = json.loads((desk / "alone" / "summary.json").read_text())
    assert all(row["gold"] is None for row in rows)
    assert "no model or planner ever saw" not in (desk / "alone" / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gold", "the_judge:nan"], "the gold scorer scored row 4 as nan"),
        (["--gold", "the_judge:few"], "returned 7 scores for 8 responses (they part at row 1)"),
        (["--gold", "the_judge:text"], "the gold scorer returned str 'good'"),
        (["--gold", "the_judge:not_callable"], "a int; required: a function"),
        (["--gold", "the_judge:nothing"], 'required: null, "simulated", "answers:PATH" or'),
        (["--gold", "no_such_module:judge"], "gold: found 'no_such_module:judge'"),
        (["--gold", "answers:no_such_file.jsonl"], "no_such_file.jsonl"),
        (["--pool", "1", "--budgets", "1"], "pool: found 1; required: at least 2"),
        (["--budgets", "8"], "pool: found 4; required: at least 8, the largest budget"),
        (["--methods", "astar"], "methods: found 'astar'"),
        (["--methods", "beam", "--budgets", "0"], "budgets: found [0]; required: each at least 1"),
        (["--token_budget", "9"], "token_budget: found 9; required: at least 10"),
        (["--leaf", "value_head"], "value_head: found None; required: the folder"),
        (["--leaf", "rollout", "--value_head", "x"], "value_head: found 'x'; required: null"),
        (["--kl_coef", "0.1"], "reference: found None; required: a policy's hub id"),
        (["--reference", "x"], "reference: found 'x'; required: null"),
        (["--kl_coef", "-1"], "kl_coef: found -1.0; required: 0 or more"),
        (["--answer_form", "haiku"], "answer form: found 'haiku'"),
        (["--leaves_per_step", "0"], "leaves_per_step: found 0"),
        (["--unit", "step", "--delimiter", ""], "delimiter: found ''"),
        (["--limit", "1"], "dataset: found '1 prompt'; required: at least 2"),
    ],
)
def test_bad_input_is_named(
    flags: list[str], message: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("bad", *flags) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def job(desk: Path, *flags: str) -> PolicyEvaluateArgs:
    return parse(PolicyEvaluateArgs, ["--config", str(desk / "settings.yaml"), *flags], prog="x")


def test_a_budget_too_small_for_one_response_is_refused_before_anything_is_loaded(
    desk: Path,
) -> None:
    assert job(desk, "--token_budget", "10").options.token_budget == 10
    with pytest.raises(ValueError, match="token_budget: found 9; required: at least 10"):
        job(desk, "--token_budget", "9")


def test_settings_reach_the_search(desk: Path, policy: Policy, policy_folder: Path) -> None:
    models = SearchModels(policy, CountingReward(), Rollout(), None)
    flags = ["--unit", "step", "--delimiter", "##", "--stop", "Human:", "END", "--min_new_tokens",
             "2", "--leaves_per_step", "2", "--token_budget", "50", "--answer_form", "boxed",
             "--max_rows", "9", "--leaf", "rollout"]  # fmt: skip
    searcher = searcher_for(job(desk, *flags), models, "gumbel_muzero", 4)
    assert (searcher.proposal.unit, searcher.proposal.delimiter) == ("step", "##")
    assert searcher.proposal.stop == ("Human:", "END")
    assert searcher.proposal.min_new_tokens == 2
    assert (searcher.token_budget, searcher.answer_form, searcher.max_rows) == (50, "boxed", 9)
    assert searcher.batch_size == 2
    assert searcher.planner.leaves_per_step == 2  # type: ignore[attr-defined]
    assert isinstance(searcher.leaf_value, Rollout)
    guided = searcher_for(job(desk, "--kl_weight", "0.7"), models, "controlled_decoding", 4)
    assert guided.planner.kl_weight == 0.7  # type: ignore[attr-defined]
    rejection = searcher_for(job(desk, "--rejection_keep", "0.3"), models, "rejection", 4)
    assert rejection.planner.keep == 0.3  # type: ignore[attr-defined]


def test_models_are_loaded_as_the_settings_name_them(
    desk: Path, policy: Policy, policy_folder: Path
) -> None:
    assert isinstance(search_models(job(desk)).leaf_value, PartialReward)
    ValueHead(policy.model.config.hidden_size).save(desk / "head")
    for flags in (["--value_head", "head"], ["--value_head", "head", "--leaf", "value_head"]):
        assert isinstance(search_models(job(desk, *flags)).leaf_value, ValueHead)
    near = search_models(job(desk, "--kl_coef", "0.2", "--reference", str(policy_folder)))
    assert isinstance(near.segment_reward, KLPenalty)
    assert near.segment_reward.beta == 0.2


def test_a_process_reward_of_the_command_rewards_each_step_by_its_last_score(
    desk: Path, policy: Policy, policy_folder: Path
) -> None:
    steps = save_classifier(policy_folder, desk / "steps", seed=1, labels=2, tokens=True)
    flags = ["--process_reward", str(steps), "--process_weight", "2"]
    found = search_models(job(desk, *flags)).segment_reward
    assert isinstance(found, ProcessReward)
    assert found.weight == 2
    tree = SegmentTree(policy, Proposal(unit="block", segment_tokens=4, max_new_tokens=8))
    (root,) = tree.add_prompts(["Write of the sea.\n"])
    nodes = tree.extend([root] * 2, [0, 1])
    model = load_reward_model(str(steps), aggregate="last")
    texts = [tree.response_text(node) for node in nodes]
    expected = 2 * model.score(["Write of the sea.\n"] * 2, texts)
    rewards = found.rewards(TreeScorer(tree, CountingReward()), nodes)
    torch.testing.assert_close(rewards, expected)
    both = [*flags, "--kl_coef", "0.2", "--reference", str(policy_folder)]
    assert isinstance(search_models(job(desk, *both)).segment_reward, SummedRewards)

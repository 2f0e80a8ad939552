"""Benchmarks over several seeds: shared between processes, summarized over seeds, shown."""

import importlib
import json
import multiprocessing
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from scipy import stats

from benchmarks.harness import documents_text
from benchmarks.harness.provenance import held_sources, source_digest
from benchmarks.harness.seed_runs import each_seed
from benchmarks.text import demo_seeds, text_gains
from policies.demo import Demo
from policies.evaluation.gain_format import show_interval
from tests.reward_folders import save_classifier

Numbers = tuple[float, float]
ROOT = Path(__file__).resolve().parent.parent


def share(folder: Path, name: str) -> None:
    """Runs four seeds; each leaves who ran it."""

    def work(seed: int) -> str:
        done = folder / f"done-{seed}"
        if not done.exists():
            time.sleep(0.3)
            done.write_text(name)
        return done.read_text()

    found = each_seed([1, 2, 3, 4], folder / "locks", work)
    (folder / f"found-{name}").write_text(json.dumps(found))


def test_two_processes_share_the_seeds_and_both_end_with_all(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=share, args=(tmp_path, name)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    found = [json.loads((tmp_path / f"found-{name}").read_text()) for name in ("a", "b")]
    assert found[0] == found[1]
    assert list(found[0]) == ["1", "2", "3", "4"], "in the order of the seeds"
    assert set(found[0].values()) == {"a", "b"}, "each has run some"


def test_a_seed_that_fails_leaves_its_lock(tmp_path: Path) -> None:
    def fail(seed: int) -> int:
        raise ValueError(str(seed))

    with pytest.raises(ValueError, match="1"):
        each_seed([1], tmp_path, fail)
    assert each_seed([1], tmp_path, lambda seed: seed) == {1: 1}


def made_up_run(folder: Path, seed: int) -> None:
    """A demo's folder with records of two prompts: seed n's policy is n better at everything."""
    rows = []

    def add(name: str, budget: int, gold: Numbers, proxy: Numbers, *, policy: str = "sft") -> None:
        method = "beam search" if name == "beam search" else "best-of-N"
        model = "reward-few" if name == "reward-few" else "reward"
        cell = {"policy": policy, "reward_model": model, "method": method, "budget": str(budget)}
        for p in range(2):
            cost = {"tokens": 100 * budget, "seconds": 1.0}
            rows.append({**cell, "prompt": p, "gold": gold[p], "proxy": proxy[p], **cost})

    for policy, lift in (("sft", 0.0), ("tuned", 0.1 * seed)):
        for budget, gain in ((1, 0.0), (4, 1.0), (16, 2.0)):
            gold = seed + gain + lift
            add("reward", budget, (gold, gold + 0.5), (gain, gain + 1), policy=policy)
    gold = seed + 1.0 + 0.3 * seed
    add("beam search", 4, (gold, gold + 0.5), (0, 1))
    # Against the reward model of few labels gold rises up to best-of-8 and falls behind it.
    for n, gold, proxy in ((1, 0.0, 0.0), (4, 0.9, 1.0), (8, 0.8, 1.5), (16, 0.3, 2.0)):
        gold += 0.01 * seed * (n == 16)
        add("reward-few", n, (gold, gold + 0.01 * seed), (proxy * seed, proxy * seed))
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "overoptimization.png").write_bytes(b"png")
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "minutes.json").write_text('{"minutes": 5.0}')
    (folder / "config.yaml").write_text(f"seed: {seed}\npool: 16\n")
    (folder / "environment.json").write_text('{"versions": {}}')
    steps = {
        "reward": {"accuracy": {"estimate": 0.8, "low": 0.7, "high": 0.9}},
        "reward-few": {"pairs": 50},
    }
    (folder / "summary.json").write_text(json.dumps({"rows": [], "steps": steps}))


def test_the_demos_figures_are_taken_seed_by_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2, 3):
        with held_sources(tmp_path / f"demo-seed-{seed}", "demo", source_digest("demo")):
            made_up_run(tmp_path / f"demo-seed-{seed}", seed)
    out = tmp_path / "demo.json"
    command = ["demo_seeds", "--seeds", "1", "2", "3", "--runs", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    demo_seeds.main()
    results: dict[str, Any] = json.loads(out.read_text())
    beam = next(cell for cell in results["base"] if cell["method"] == "beam search")
    # Gains of .3, .6 and .9: Student's t of two degrees of freedom.
    half = stats.t.ppf(0.975, 2) * 0.3 / 3**0.5
    gain = beam["gain_at_equal_tokens"]
    assert gain["by_seed"] == pytest.approx([0.3, 0.6, 0.9])
    assert (gain["low"], gain["high"]) == pytest.approx((0.6 - half, 0.6 + half))
    assert gain["degrees"] == 2
    # Gold of the seeds is 2, 3 and 4 and more: an interval over 6 prompts would be a third of it.
    assert beam["gold"]["high"] - beam["gold"]["low"] > 4
    assert results["held_out_prompts"] == 6
    assert results["best_of_16_above_base"]["by_seed"] == pytest.approx([2.0] * 3)
    tuned = results["fine_tuned_above_base_without_search"]
    assert tuned["by_seed"] == pytest.approx([0.1, 0.2, 0.3])
    assert results["provenance"]["seeds"] == [1, 2, 3]
    text = "\n\n".join(documents_text.demo(results))
    assert "95 % intervals over 3 seeds of 2 prompts" in text
    assert "1 comparison, each at 95 %: 0 gain, 0 lose, 1 undecided" in text
    assert "| +0.60 [-0.15, +1.35] | is undecided |" in text
    assert "seeds would decide a true difference of 0.2 in four of five tries" in text
    few = results["few_labels"]
    assert few["pairs"] == [50]
    assert [row["budget"] for row in few["above_one_sample"]] == ["4", "8", "16"]
    change = few["change"]
    # From the N that was fixed, not from best-of-4, where these records have the most gold.
    assert (change["from"], change["to"]) == ("8", "16")
    assert change["gold"]["by_seed"] == pytest.approx([-0.49, -0.48, -0.47])
    assert change["proxy"]["by_seed"] == pytest.approx([0.5, 1.0, 1.5])
    assert "a reward model of 50 labels" in text
    assert "| best-of-4 | +2.00 [-0.48, +4.48] | +0.90 [+0.90, +0.90] |" in text
    assert "changes by what these seeds do not decide (+1.00 [-0.24, +2.24])" in text
    assert "gold falls (-0.48 [-0.50, -0.46])" in text
    older = {key: value for key, value in results.items() if key != "few_labels"}
    assert "gold falls" not in "\n\n".join(documents_text.demo(older))
    assert "demo_overoptimization.png" in "\n\n".join(documents_text.demo(older))


@pytest.fixture
def digest(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digest of the sources, which a test changes."""
    digest = [source_digest("demo")]
    monkeypatch.setattr("benchmarks.harness.provenance.source_digest", lambda name, *_: digest[0])
    monkeypatch.setattr("benchmarks.harness.provenance._commit", lambda: (None, None))
    return digest


def test_an_edit_between_seeds_of_the_demo_writes_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: list[str]
) -> None:
    out = tmp_path / "demo.json"

    def demo(command: list[str], **_: Any) -> None:
        folder = Path(command[command.index("--out") + 1])
        made_up_run(folder, int(command[command.index("--seed") + 1]))
        digest[0] = "edited"

    monkeypatch.setattr("subprocess.run", demo)
    words = ["demo_seeds", "--seeds", "1", "2", "--runs", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(ValueError, match=r"changed while it was measured.*Put the files back"):
        demo_seeds.main()
    assert not out.exists()
    assert not (tmp_path / "demo-seed-2").exists()


@pytest.mark.parametrize("name", ["atari.cartpole", "text.text_gains"])
def test_an_edit_while_a_seed_runs_writes_no_results(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: list[str]
) -> None:
    if name == "atari.cartpole":
        pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")
    module = importlib.import_module(f"benchmarks.{name}")
    begun = []

    def train(*arguments: Any) -> None:
        begun.append(arguments)
        digest[0] = "edited"

    monkeypatch.setattr(module, "train", train)
    results = "curve" if name == "atari.cartpole" else "evaluate"
    monkeypatch.setattr(module, results, lambda *_, **__: [])
    out, runs = tmp_path / "out.json", tmp_path / "runs"
    words = [name, "--seeds", "1", "2", "--runs", str(runs), "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(ValueError, match=r"changed while it was measured.*Put the files back"):
        module.main()
    assert len(begun) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "name", ["text/demo_seeds", "text/text_gains", "atari/cpu", "core/planning_core"]
)
def test_no_benchmark_updates_the_documents_before_its_pictures(name: str) -> None:
    text = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    body = text[text.index("\ndef main(") :]
    drawn = re.findall(r"(?:gain_curves|budget_curves|draw|shutil\.copyfile)\(", body)
    assert drawn
    assert max(body.rindex(call) for call in drawn) < body.index("publish(")


@pytest.mark.parametrize(
    ("page", "name"), [("README.md", "demo"), ("docs/text_search.md", "text_gains")]
)
def test_the_documents_show_intervals_over_seeds(page: str, name: str) -> None:
    results = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    text = (ROOT / page).read_text(encoding="utf-8")
    seeds = results["provenance"]["seeds"]
    cells = results["base"] if name == "demo" else results["cells"]
    for cell in cells:
        for key in ("gold", "gain_at_equal_tokens"):
            value = cell[key]
            if value is None:
                continue
            assert len(value["by_seed"]) == len(seeds) >= 2
            mean, error = stats.tmean(value["by_seed"]), stats.sem(value["by_seed"])
            half = stats.t.ppf(0.975, len(value["by_seed"]) - 1) * error
            assert value["estimate"] == pytest.approx(mean)
            assert (value["low"], value["high"]) == pytest.approx((mean - half, mean + half))
            assert show_interval(value, sign=key != "gold") in text
    assert f"intervals over {len(seeds)} seeds" in text


def test_what_fitting_value_heads_takes_is_counted(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(policy_folder, tmp_path / "sft")
    save_classifier(policy_folder, tmp_path / "reward", seed=0)
    monkeypatch.setattr(text_gains, "VALUE_PROMPTS", 4)
    monkeypatch.setattr(text_gains, "VALUE_RESPONSES", 3)
    demo = SimpleNamespace(models=tmp_path, seed=lambda name: 0)
    found = text_gains.fit_heads(cast(Demo, demo))
    generated, read = (found["samples"][key] for key in ("generated_tokens", "read_tokens"))
    assert found["sentence"]["responses"] == 12
    assert generated >= 12
    # The policy reads each new token but a response's last, the reward model each token of all.
    assert read >= 2 * generated - 12
    for unit in ("sentence", "token"):
        assert found[unit]["read_tokens"] >= generated


def test_a_seed_of_other_code_is_not_pooled(tmp_path: Path) -> None:
    made_up_run(tmp_path / "demo-seed-1", 1)
    with pytest.raises(ValueError, match="was begun with other source files"):
        demo_seeds.run_seed(1, tmp_path / "demo-seed-1", 1, source_digest("demo"))

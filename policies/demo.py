"""The demo: trains a reward model, searches, fine-tunes and evaluates on the synthetic task.

In the synthetic task (`rewardmodel.synthetic.world`) a small Llama learns to write from uneven
demonstrations; a simulated human compares what it writes; a reward model learns the human from
these comparisons; best-of-N, beam search and tree search plan against the reward model; the policy
is fine-tuned on what the search found; and the human's own utility, which nothing above ever
saw, measures what all of that gained. Each step seeds itself and leaves its result, so a killed
run continues.
"""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console

from policies.cli.demo_args import DemoArgs
from policies.demo_report import closing_rows, write_report
from policies.evaluation.clusters import clusters_of, with_clusters
from policies.evaluation.gain_format import closing_table, scope_of, show_interval
from policies.evaluation.records import best_of_n_records, search_records
from policies.finetuning.policy_kl import kl_to
from policies.finetuning.samples import (
    Samples,
    finished_pairs_of,
    pairs_of,
    sample_responses,
    searched_demonstrations,
)
from policies.generation.language_model import Policy, TinyModel, build_tiny_model, fine_tune
from policies.generation.proposals import Proposal
from policies.planning.methods import build_searcher
from policies.planning.options import TITLES, MethodName, seed_name
from policies.planning.searcher import SearchPolicy
from prefsearch.cli.console import PlainConsole
from prefsearch.run.directory import RunDirectory, step_seed
from prefsearch.statistics.seed_intervals import interval_over_seeds
from prefsearch.storage.files import write_json_atomic, write_text_atomic
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.preferences import load_demonstrations, load_preferences
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.synthetic.requests import sample_requests
from rewardmodel.synthetic.world import demonstrations
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model

PROPOSAL = Proposal(unit="sentence", max_new_tokens=128)
HUMAN = SimulatedHuman()


class Demo:
    """The steps of the demo; `run` takes them in order."""

    def __init__(self, config: DemoArgs, console: Console) -> None:
        """Opens the run's folder.

        Raises:
            RunExistsError: If the folder is in use and `resume` is off.
            StorageError: If it cannot be written.
        """
        settings = {k: v for k, v in asdict(config).items() if k not in ("out", "resume")}
        self.config = config
        self.console = console
        self.folder = RunDirectory.open(config.out, settings, resume=config.resume)
        self.models = self.folder.checkpoints

    def seed(self, name: str) -> int:
        """The seed of a step."""
        return step_seed(self.config.seed, name)

    def step(
        self, name: str, what: str, work: Callable[[], Mapping[str, Any]], *files: str
    ) -> dict[str, Any]:
        """Takes a step unless an earlier run has.

        Args:
            name: Of the step.
            what: Of it, for the reader.
            work: Returns its result.
            files: Files and folders that it leaves for later steps, below the run's folder.
        """
        done = self.folder.result(name)
        if done is not None:
            self.console.print(f"{what}: done before", style="dim")
            return done
        self.console.print(what, style="bold")
        began = time.perf_counter()
        torch.manual_seed(self.seed(name))
        result = dict(work())
        records = result.pop("records", ())
        result["step_seconds"] = round(time.perf_counter() - began, 1)
        left = [self.folder.path / file for file in files]
        return self.folder.finish(name, result, records=records, files=left)

    def run(self) -> list[dict[str, Any]]:
        """Takes all steps and returns the rows of the closing table."""
        config = self.config
        what = "1/7  A small policy learns to write from uneven demonstrations"
        self.step("sft", what, self.sft, "checkpoints/init", "checkpoints/sft")
        what = "2/7  It writes, and a simulated human compares"
        self.step("compare", what, self.compare, "data/preferences.jsonl")
        what = "3/7  A reward model learns the human"
        self.step("reward", what, self.reward, "checkpoints/reward")
        what = "     and another one from few labels"
        self.step("reward-few", what, self.reward_few, "checkpoints/reward-few")
        self.step("pool", "4/7  Best-of-N on held-out prompts", self.pool, "data/pool.json")
        title = "5/7  Planning against the reward model"
        for method, budget in config.sweep:
            name = f"search-{method}-{budget}"
            what = f"{title}: {TITLES[method]}, budget {budget}"
            work = functools.partial(self.search, method, budget)
            self.step(name, what, work, f"data/{name}.json")
        what = "6/7  Searching for better texts to learn from"
        self.step("improve", what, self.improve, "data/searched.jsonl")
        what = "     Fine-tuning the policy on them"
        self.step("distill", what, self.distill, "checkpoints/tuned")
        what = "     The fine-tuned policy, without search"
        self.step("tuned", what, self.tuned, "data/tuned.json")
        what = "7/7  The report"
        self.step("report", what, lambda: write_report(self.folder, asdict(config), HUMAN))
        return closing_rows(self.folder)

    # ------------------------------------------------------------------------ training the models

    def sft(self) -> dict[str, object]:
        """Builds a tiny Llama and fine-tunes it on the world's demonstrations."""
        data = demonstrations(self.config.demonstrations, seed=self.seed("demonstrations"))
        texts = [p + c for p, c in zip(data["prompt"], data["completion"], strict=True)]
        build_tiny_model(texts, self.models / "init", size=TinyModel(), seed=self.seed("init"))
        optimization = OptimConfig(learning_rate=5e-3, batch_size=16, seed=self.seed("sft"))
        init = str(self.models / "init")
        return fine_tune(init, data, self.models / "sft", optimization=optimization)

    def compare(self) -> dict[str, object]:
        """Samples four responses a prompt and asks the human about two pairs of them."""
        requests = sample_requests(self.config.comparisons, seed=self.seed("requests"))
        samples = sample_responses(
            Policy.load(str(self.models / "sft")),
            [request.prompt for request in requests],
            4,
            proposal=PROPOSAL,
            seed=self.seed("compare"),
            progress="sampling",
        )
        labeled, ties = HUMAN.label(
            *pairs_of(samples), seed=self.seed("labels"), finished=finished_pairs_of(samples)
        )
        path = self.folder.path / "data" / "preferences.jsonl"
        write_text_atomic(path, json_lines(labeled))
        gold = HUMAN.utilities(*samples.flat())
        return {"pairs": len(labeled), "ties": ties, "gold_mean": sum(gold) / len(gold)}

    def _preferences(self) -> tuple[Dataset, Dataset]:
        """The human's choices: for training, and the last tenth for measuring."""
        labeled = load_preferences(str(self.folder.path / "data" / "preferences.jsonl"))
        cut = int(0.9 * len(labeled))
        return labeled.select(range(cut)), labeled.select(range(cut, len(labeled)))

    def _train_reward(self, name: str, labels: int | None, epochs: float) -> dict[str, object]:
        training, held_out = self._preferences()
        if labels is not None:
            training = training.select(range(min(labels, len(training))))
        optimization = OptimConfig(
            epochs=epochs, learning_rate=1e-3, batch_size=32, seed=self.seed(name)
        )
        base = str(self.models / "sft")
        outcome = train_reward_model(base, training, self.models / name, optimization=optimization)
        reward_model = SequenceRewardModel.load(str(self.models / name))
        measured = evaluate_reward_model(reward_model, held_out, seed=self.seed(name))
        return {
            **outcome,
            "held_out_pairs": measured.pairs,
            "accuracy": asdict(measured.accuracy),
            "longer_reply_accuracy": asdict(measured.longer_reply_accuracy),
        }

    def reward(self) -> dict[str, object]:
        """Trains the reward model that everything plans against, initialized from the policy."""
        return self._train_reward("reward", None, 2)

    def reward_few(self) -> dict[str, object]:
        """Trains a reward model on few labels, to show over-optimization."""
        return self._train_reward("reward-few", self.config.few_labels, 4)

    # --------------------------------------------------------------------------------- measuring

    def eval_prompts(self) -> list[str]:
        """Held-out prompts: nothing is trained on their things in any roles; each seed has its own.

        The seed is the run's own, not that of a step, so that seeds share no prompt.
        """
        held_out = sample_requests(self.config.eval_prompts, seed=self.config.seed, held_out=True)
        return [request.prompt for request in held_out]

    def clusters(self) -> list[str]:
        """What each held-out prompt asks for: prompts of one cluster are not independent."""
        return clusters_of(self.eval_prompts())

    def pool(self) -> dict[str, object]:
        """Measures best-of-N at every N, with both reward models, from one pool of samples."""
        seed = self.seed("pool")
        policy = Policy.load(str(self.models / "sft"))
        prompts = self.eval_prompts()
        began = time.perf_counter()
        samples = sample_responses(
            policy, prompts, self.config.pool, proposal=PROPOSAL, seed=seed, progress="sampling"
        )
        seconds = time.perf_counter() - began
        self._save_samples("pool", samples)
        counts = [2**i for i in range(self.config.pool.bit_length())]
        records = []
        for name in ("reward", "reward-few"):
            reward_model = SequenceRewardModel.load(str(self.models / name))
            records += [
                {"reward_model": name, "policy": "sft", **record}
                for record in best_of_n_records(
                    samples, reward_model, HUMAN.utilities, counts=counts, seed=seed,
                    seconds=seconds, policy=policy,
                )
            ]  # fmt: skip
        records = with_clusters(records, self.clusters())
        return {"responses": len(prompts) * self.config.pool, "records": records}

    def _searcher(self, method: MethodName, budget: int) -> SearchPolicy:
        return build_searcher(
            method,
            budget,
            policy=Policy.load(str(self.models / "sft")),
            reward_model=SequenceRewardModel.load(str(self.models / "reward")),
            leaf_value=None,  # the reward model values unfinished text, too
            proposal=PROPOSAL,
        )

    def search(self, method: MethodName, budget: int) -> dict[str, object]:
        """Searches the held-out prompts with one method at one budget."""
        records, results = search_records(
            self._searcher(method, budget),
            self.eval_prompts(),
            HUMAN.utilities,
            method=TITLES[method],
            budget=str(budget),
            seed=self.seed(seed_name(method, budget)),
            keep_trees=1,
        )
        texts = [result.response for result in results]
        write_json_atomic(
            self.folder.path / "data" / f"search-{method}-{budget}.json",
            {
                "responses": texts,
                "finished": [result.response_finished for result in results],
                "tree": results[0].tree,
            },
        )
        tagged = [{"reward_model": "reward", "policy": "sft", **record} for record in records]
        return {"records": with_clusters(tagged, self.clusters())}

    # --------------------------------------------------------------------- fine-tuning by search

    def improve(self) -> dict[str, object]:
        """Searches training prompts for texts that are better than what the policy writes."""
        count = self.config.finetune_prompts
        requests = sample_requests(count, seed=self.seed("improve"))
        prompts = [request.prompt for request in requests]
        budget = 4 if self.config.fast else 8
        results = self._searcher("gumbel_muzero", budget).generate(
            prompts, seed=self.seed("improve"), progress="searching"
        )
        found = searched_demonstrations(
            prompts,
            [result.response for result in results],
            [result.response_finished for result in results],
        )
        path = self.folder.path / "data" / "searched.jsonl"
        write_text_atomic(path, json_lines(found))
        tokens = sum(result.tokens for result in results)
        cut = len(found) - sum(found["finished"])
        return {"texts": len(found), "unfinished": cut, "tokens": tokens, "budget": budget}

    def distill(self) -> dict[str, object]:
        """Fine-tunes the policy on the searched texts: one round of search-based fine-tuning."""
        found = load_demonstrations(str(self.folder.path / "data" / "searched.jsonl"))
        seed = self.seed("distil")  # recorded results have this stream's numbers
        optimization = OptimConfig(epochs=3, learning_rate=1e-3, batch_size=16, seed=seed)
        base = str(self.models / "sft")
        return fine_tune(base, found, self.models / "tuned", optimization=optimization)

    def tuned(self) -> dict[str, object]:
        """Measures the fine-tuned policy without search against the base policy without search."""
        seed = self.seed("tuned")
        tuned, base = (Policy.load(str(self.models / name)) for name in ("tuned", "sft"))
        each = min(16, self.config.pool)
        began = time.perf_counter()
        samples = sample_responses(
            tuned, self.eval_prompts(), each, proposal=PROPOSAL, seed=seed, progress="sampling"
        )
        seconds = time.perf_counter() - began
        self._save_samples("tuned", samples)
        reward_model = SequenceRewardModel.load(str(self.models / "reward"))
        counts = [2**i for i in range(each.bit_length())]
        records = best_of_n_records(
            samples, reward_model, HUMAN.utilities, counts=counts, seed=seed, seconds=seconds,
            policy=tuned,
        )  # fmt: skip
        alone = [r["gold"] for r in records if r["budget"] == "1"]
        before = [
            r["gold"]
            for r in self.folder.step_records("pool")
            if r["budget"] == "1" and r["reward_model"] == "reward"
        ]
        gains, clusters = np.subtract(alone, before), self.clusters()
        tagged = [{"reward_model": "reward", "policy": "tuned", **record} for record in records]
        return {
            "gold": asdict(interval_over_seeds([alone], clusters=[clusters], kind="score")),
            "gain_over_base": asdict(
                interval_over_seeds([gains], clusters=[clusters], kind="score")
            ),
            "kl_to_base": asdict(kl_to(base, samples, clusters=clusters)),
            "records": with_clusters(tagged, clusters),
        }

    # --------------------------------------------------------------------------------- small files

    def _save_samples(self, name: str, samples: Samples) -> None:
        kept = {
            "prompts": samples.prompts,
            "texts": samples.texts,
            "tokens": samples.tokens,
            "log_probabilities": samples.log_probabilities,
            "finished": samples.finished,
        }
        write_json_atomic(self.folder.path / "data" / f"{name}.json", kept)


def run_demo(config: DemoArgs) -> None:
    """Runs the demo and prints its closing table."""
    torch.set_num_threads(config.threads)
    console = PlainConsole()
    began = time.perf_counter()
    demo = Demo(config, console)
    rows = demo.run()
    console.print(closing_table(rows, title="Gold utility on held-out prompts"))
    tuned = demo.folder.result("tuned") or {}
    gain = show_interval(tuned["gain_over_base"], sign=True)
    scope = scope_of([tuned["gain_over_base"]])
    console.print(f"Fine-tuned above base, both without search: {gain} ({scope})")
    minutes = (time.perf_counter() - began) / 60
    console.print(f"{minutes:.1f} minutes. Open {demo.folder.report} in a browser.")

"""The jobs behind `prefsearch policy`: sft, sample, value, plan, finetune, evaluate.

A job loads models and prompts by hub id or file, calls one function of this package and writes
files.
"""

import importlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console

from policies.collection import sample_responses, searched_demonstrations
from policies.evaluation import Judge, best_of_n_records, search_records
from policies.gain_report import write_gain_report
from policies.language_model import Policy, TinyModel, build_tiny_model, fine_tune
from policies.leaf_values import ValueHead, fit_value_head
from policies.methods import METHOD_NAMES, TITLES, MethodName, build_searcher, check_budget
from policies.proposals import Proposal
from policies.search_policy import SearchPolicy
from rewardmodel.doors import BadRows, json_lines, optimisation_of, settings_of
from rewardmodel.preferences import load_demonstrations, load_prompts
from rewardmodel.sequence import SequenceRewardModel
from rewardmodel.simulated import SimulatedHuman
from rewardmodel.training import Optimisation
from search.evaluation.records import write_json_atomic, write_text_atomic
from search.evaluation.run_directory import RunDirectory, step_seed
from search.evaluation.settings import check_types, require

_logger = logging.getLogger(__name__)


@dataclass
class SftJob(Optimisation):
    """Fine-tune a policy on demonstrations, from a pretrained model or a tiny one from scratch.

    Attributes:
        model: Hub id or folder to begin from; null builds a Llama of the sizes below.
        dataset: Demonstrations (prompt and completion, messages) or preferences (the chosen reply).
        split: Split of a hub dataset or folder.
        limit: Use this many rows; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        vocabulary: From scratch: entries of the tokenizer.
        hidden_size: From scratch: width of the model.
        layers: From scratch: transformer blocks.
        heads: From scratch: attention heads.
        context: From scratch: the most tokens of prompt and response.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    model: str | None = None
    dataset: str = ""
    split: str = "train"
    limit: int | None = None
    on_bad_row: BadRows = "error"
    vocabulary: int = 1024
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    context: int = 256
    out: str = "runs/sft"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        self.size()

    def size(self) -> TinyModel:
        """The sizes of a model from scratch."""
        return TinyModel(self.vocabulary, self.hidden_size, self.layers, self.heads, self.context)


def sft(job: SftJob) -> None:
    """Fine-tunes and saves; see `SftJob`."""
    from rewardmodel.tokenization import load_tokenizer

    console = Console()
    tokenizer = load_tokenizer(job.model) if job.model else None
    data = load_demonstrations(
        job.dataset,
        split=job.split,
        tokenizer=tokenizer,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
    )
    run = RunDirectory.open(job.out, settings_of(job), resume=job.resume)
    folder = run.checkpoints / "model"
    result = run.result("sft")
    if result is None:
        base = job.model
        if base is None:
            base = str(run.checkpoints / "init")
            texts = [p + c for p, c in zip(data["prompt"], data["completion"], strict=True)]
            build_tiny_model(texts, Path(base), size=job.size(), seed=job.seed)
        outcome = fine_tune(
            base,
            data,
            folder,
            optimisation=optimisation_of(job),
            checkpoints=run.path / "trainer",
        )
        result = run.finish("sft", outcome)
    console.print(f"Loss {result['loss_first']:.3f} -> {result['loss_last']:.3f}. Model: {folder}")


@dataclass
class ProposalSettings:
    """Where prompts come from and how segments are sampled.

    Attributes:
        policy: Hub id or folder of a causal language model.
        dataset: Prompts: hub id, folder, file with a prompt column, preferences, or .txt.
        split: Split of a hub dataset or folder.
        limit: Use this many prompts; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        on_long_prompt: "error" stops at a prompt that leaves no room for a response in the policy's
            context, "skip" leaves such prompts out and counts them.
        unit: A segment is a sentence, line, block (of segment_tokens) or response.
        segment_tokens: The most tokens of a segment.
        max_new_tokens: The most tokens of a response.
        temperature: Of sampling.
        top_k: Sample among the k likeliest tokens; 0 takes all.
        top_p: Sample within this much probability mass; 1 takes all.
        search_batch_size: Prompts searched side by side.
        seed: Of everything random.
    """

    policy: str = ""
    dataset: str = ""
    split: str = "train"
    limit: int | None = None
    on_bad_row: BadRows = "error"
    on_long_prompt: BadRows = "error"
    unit: Literal["sentence", "line", "block", "response"] = "sentence"
    segment_tokens: int = 64
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    search_batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.policy), "policy", self.policy, "a hub id or folder, by --policy")
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(
            self.search_batch_size > 0, "search_batch_size", self.search_batch_size, "1 or more"
        )
        self.proposal()

    def proposal(self) -> Proposal:
        """How segments are sampled."""
        return Proposal(
            unit=self.unit,
            segment_tokens=self.segment_tokens,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )

    def prompts(self, policy: Policy) -> list[str]:
        """Loads the prompts, chat messages by the policy's template.

        Raises:
            ValueError: If a prompt leaves no room for a response and is not to be skipped, or none
                is left.
        """
        found = load_prompts(
            self.dataset,
            split=self.split,
            tokenizer=policy.encoder.tokenizer,
            on_bad_row=self.on_bad_row,
            limit=self.limit,
        )
        room = policy.room_for_prompts(self.max_new_tokens)
        lengths = [len(policy.encoder.prompt_ids(prompt)) for prompt in found]
        fitting = [p for p, length in zip(found, lengths, strict=True) if length <= room]
        if (len(fitting) < len(found) and self.on_long_prompt == "error") or not fitting:
            row = next(i for i, length in enumerate(lengths) if length > room)
            raise ValueError(
                f"{self.dataset}: prompt {row} has {lengths[row]} tokens "
                f"({len(found) - len(fitting)} of {len(found)} prompts are too long); required: at "
                f"most {room}, the policy's context of {policy.context} less max_new_tokens and an "
                "end token. Lower max_new_tokens, or leave such prompts out with on_long_prompt: "
                "skip"
            )
        if len(fitting) < len(found):
            _logger.warning("%d of %d prompts too long", len(found) - len(fitting), len(found))
        return fitting


@dataclass
class SampleJob(ProposalSettings):
    """Sample whole responses of a policy, several to a prompt.

    Attributes:
        per_prompt: Responses to each prompt.
        out: JSON lines of prompt and responses.
    """

    per_prompt: int = 4
    out: str = "runs/samples.jsonl"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(self.per_prompt > 0, "per_prompt", self.per_prompt, "at least 1")


def sample(job: SampleJob) -> None:
    """Samples; see `SampleJob`."""
    policy = Policy.load(job.policy)
    samples = sample_responses(
        policy,
        job.prompts(policy),
        job.per_prompt,
        proposal=job.proposal(),
        seed=job.seed,
        progress="sampling",
    )
    rows = [
        {"prompt": prompt, "responses": texts}
        for prompt, texts in zip(samples.prompts, samples.texts, strict=True)
    ]
    write_text_atomic(job.out, json_lines(rows))
    Console().print(f"{len(rows)} prompts: {job.out}")


@dataclass
class ValueJob(ProposalSettings):
    """Fit a value head: the expected final reward of an unfinished response.

    Attributes:
        reward_model: Folder or hub id of a reward model.
        per_prompt: Responses sampled to each prompt to learn from.
        out: Folder for the head.
    """

    reward_model: str = ""
    per_prompt: int = 4
    out: str = "runs/value"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.reward_model), "reward_model", self.reward_model, "a hub id or folder")
        require(self.per_prompt > 0, "per_prompt", self.per_prompt, "at least 1")


def value(job: ValueJob) -> None:
    """Fits and saves a value head; see `ValueJob`."""
    policy = Policy.load(job.policy)
    samples = sample_responses(
        policy,
        job.prompts(policy),
        job.per_prompt,
        proposal=job.proposal(),
        seed=job.seed,
        progress="sampling",
    )
    prompts, responses = samples.flat()
    scores = SequenceRewardModel.load(job.reward_model).score(prompts, responses)
    found = fit_value_head(
        policy, job.proposal(), prompts, responses, scores, Path(job.out), seed=job.seed
    )
    explained = found["explained_variance"]
    Console().print(f"Explained variance on held-out responses {explained:.3f}. Head: {job.out}")


@dataclass
class SearchSettings(ProposalSettings):
    """What a search plans against and how far.

    Attributes:
        reward_model: Folder or hub id of a reward model.
        value_head: Folder of a value head; null asks the reward model about unfinished text.
        method: best_of_n, beam, muzero or gumbel.
        budget: Responses of best-of-N, segments a step of beam search, simulations a decision of
            a tree search.
    """

    reward_model: str = ""
    value_head: str | None = None
    method: Literal["best_of_n", "beam", "muzero", "gumbel"] = "gumbel"
    budget: int = 8

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.reward_model), "reward_model", self.reward_model, "a hub id or folder")
        check_budget(self.method, self.budget)

    def models(self) -> tuple[Policy, SequenceRewardModel, ValueHead | None]:
        """Loads policy, reward model and value head."""
        head = ValueHead.load(self.value_head) if self.value_head else None
        return Policy.load(self.policy), SequenceRewardModel.load(self.reward_model), head

    def searcher(
        self,
        models: tuple[Policy, SequenceRewardModel, ValueHead | None],
        method: MethodName,
        budget: int,
    ) -> SearchPolicy:
        """Makes the searching policy."""
        policy, reward_model, head = models
        if head is not None:
            head = head.to(policy.model.device)
        return build_searcher(
            method,
            budget,
            policy=policy,
            reward_model=reward_model,
            leaf_value=head,
            proposal=self.proposal(),
            batch_size=self.search_batch_size,
        )


@dataclass
class PlanJob(SearchSettings):
    """Answer prompts with the best responses that a search finds.

    Attributes:
        keep_trees: For how many of the first prompts to keep the search tree.
        save_trees: New or empty folder for all search trees, which `prefsearch tree show` opens;
            null saves none.
        out: JSON lines of prompt, response, score and cost.
    """

    keep_trees: int = 0
    save_trees: str | None = None
    out: str = "runs/planned.jsonl"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        if self.save_trees is not None:
            folder = Path(self.save_trees)
            free = folder.is_dir() and not any(folder.iterdir())
            wanted = "a new or empty folder, so that no older trees lie between the new ones"
            require(free or not folder.exists(), "save_trees", self.save_trees, wanted)


def plan(job: PlanJob) -> None:
    """Plans; see `PlanJob`."""
    models = job.models()
    results = job.searcher(models, job.method, job.budget).generate(
        job.prompts(models[0]),
        seed=job.seed,
        keep_trees=job.keep_trees,
        save_trees=None if job.save_trees is None else Path(job.save_trees),
        progress=job.method,
    )
    write_text_atomic(job.out, json_lines([asdict(result) for result in results]))
    tokens = sum(result.tokens for result in results) / len(results)
    mean = sum(result.score for result in results) / len(results)
    Console().print(f"Mean score {mean:.3f}, {tokens:.0f} tokens a prompt: {job.out}")


@dataclass
class FinetuneJob(SearchSettings, Optimisation):
    """One round of search-based fine-tuning: search prompts, then learn from what was found.

    Attributes:
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    out: str = "runs/finetune"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        SearchSettings.__post_init__(self)
        Optimisation.__post_init__(self)


def finetune(job: FinetuneJob) -> None:
    """Searches and distils; see `FinetuneJob`."""
    console = Console()
    models = job.models()
    prompts = job.prompts(models[0])
    run = RunDirectory.open(job.out, settings_of(job), resume=job.resume)
    found = run.path / "searched.jsonl"
    if run.result("search") is None:
        results = job.searcher(models, job.method, job.budget).generate(
            prompts, seed=job.seed, progress="searching"
        )
        rows = searched_demonstrations(
            [result.prompt for result in results], [result.response for result in results]
        )
        write_text_atomic(found, json_lines(rows))
        run.finish("search", {"texts": len(rows), "tokens": sum(r.tokens for r in results)})
    folder = run.checkpoints / "model"
    if run.result("distil") is None:
        outcome = fine_tune(
            job.policy,
            load_demonstrations(str(found)),
            folder,
            optimisation=optimisation_of(job),
            checkpoints=run.path / "trainer",
        )
        run.finish("distil", outcome)
    console.print(f"Model: {folder}")


@dataclass
class EvaluateJob(SearchSettings):
    """Measure what search gains: methods and budgets on the same prompts, with a report.

    Attributes:
        methods: Beside best-of-N, which is always measured: beam, muzero, gumbel.
        budgets: Of each of them.
        pool: Responses sampled to each prompt, the largest N of best-of-N.
        gold: A judge that the search never sees: "simulated" for the embedded world,
            "module:function" for your own (prompts, responses) -> scores, or null.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    methods: list[str] | None = None
    budgets: list[int] | None = None
    pool: int = 16
    gold: str | None = None
    out: str = "runs/evaluate"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        self.methods = self.methods or ["beam", "gumbel"]
        self.budgets = self.budgets or [4, 8]
        for method in self.methods:
            known = ", ".join(METHOD_NAMES[1:])
            require(method in METHOD_NAMES[1:], "methods", method, f"some of {known}")
            for budget in self.budgets:
                check_budget(cast(MethodName, method), budget)
        require(self.pool >= 2, "pool", self.pool, "at least 2")


def load_judge(name: str | None) -> Judge | None:
    """Finds the gold judge that a setting names.

    Raises:
        ValueError: If there is no such module or function.
    """
    if name is None:
        return None
    if name == "simulated":
        return SimulatedHuman().utilities
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a file of the user's, beside where the command is typed
    try:
        return cast(Callable[[Sequence[str], Sequence[str]], Sequence[float]], getattr(
            importlib.import_module(module), function))  # fmt: skip
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f'gold: found {name!r}; required: null, "simulated" or "module:function" that can be '
            f"imported ({error})"
        ) from error


def evaluate(job: EvaluateJob) -> None:
    """Measures and reports; see `EvaluateJob`."""
    console = Console()
    judge = load_judge(job.gold)
    models = job.models()
    prompts = job.prompts(models[0])
    run = RunDirectory.open(job.out, settings_of(job), resume=job.resume)
    if run.result("pool") is None:
        began = time.perf_counter()
        seed = step_seed(job.seed, "pool")
        samples = sample_responses(
            models[0], prompts, job.pool, proposal=job.proposal(), seed=seed, progress="best-of-N"
        )
        seconds = time.perf_counter() - began
        counts = [2**i for i in range(job.pool.bit_length())]
        records = best_of_n_records(
            samples, models[1], judge, counts=counts, seed=seed, seconds=seconds
        )
        write_json_atomic(run.path / "data" / "pool.json", asdict(samples))
        run.finish("pool", {"responses": len(prompts) * job.pool}, records=records)
    assert job.methods is not None
    assert job.budgets is not None
    for method in cast(list[MethodName], job.methods):
        for budget in job.budgets:
            name = f"search-{method}-{budget}"
            if run.result(name) is not None:
                continue
            records, results = search_records(
                job.searcher(models, method, budget),
                prompts,
                judge,
                method=TITLES[method],
                budget=str(budget),
                seed=step_seed(job.seed, name),
                keep_trees=1,
            )
            kept: dict[str, Any] = {
                "responses": [result.response for result in results],
                "tree": results[0].tree,
            }
            write_json_atomic(run.path / "data" / f"{name}.json", kept)
            run.finish(name, {"prompts": len(prompts)}, records=records)
    console.print(write_gain_report(run, json.loads(json.dumps(asdict(job)))))
    console.print(f"Open {run.report} in a browser.")

"""`prefsearch reward train`: from preferences to a measured reward model in a run's folder."""

from dataclasses import dataclass

from rich.console import Console

from rewardmodel.door_evaluate import measure, show_measures
from rewardmodel.job_settings import optimisation_of, settings_of
from rewardmodel.preferences import load_preferences, preference_report, split_by_prompt
from rewardmodel.rows import OnBadRow
from rewardmodel.sequence import SequenceRewardModel
from rewardmodel.tokenization import load_tokenizer
from rewardmodel.training import Optimisation, train_reward_model
from search.evaluation.records import write_json_atomic
from search.evaluation.run_directory import RunDirectory
from search.evaluation.settings import require


@dataclass
class TrainJob(Optimisation):
    """Train a reward model on preference pairs and measure it on held-out prompts.

    Attributes:
        model: What to begin from: hub id or folder of a language model or classifier.
        dataset: Preference pairs: hub id, folder, or .json, .jsonl, .jsonl.gz, .parquet, .csv file.
        split: Split of a hub dataset or folder.
        holdout: Share of the prompts kept for measuring.
        limit: Use this many pairs; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    model: str = ""
    dataset: str = ""
    split: str = "train"
    holdout: float = 0.1
    limit: int | None = None
    on_bad_row: OnBadRow = "error"
    out: str = "runs/reward"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.model), "model", self.model, "a hub id or folder, by --model")
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(0 < self.holdout < 1, "holdout", self.holdout, "in (0, 1)")


def train(job: TrainJob) -> None:
    """Trains, measures and saves; see `TrainJob`."""
    console = Console()
    tokenizer = load_tokenizer(job.model)
    data = load_preferences(
        job.dataset,
        split=job.split,
        tokenizer=tokenizer,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
    )
    training, held_out = split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    run = RunDirectory.open(job.out, settings_of(job), resume=job.resume)
    folder = run.checkpoints / "model"
    if run.result("train") is None:
        write_json_atomic(run.path / "data_report.json", preference_report(data))
        outcome = train_reward_model(
            job.model,
            training,
            folder,
            optimisation=optimisation_of(job),
            checkpoints=run.path / "trainer",
        )
        run.finish("train", outcome)
    result = run.result("evaluate")
    if result is None:
        reward_model = SequenceRewardModel.load(str(folder), max_length=job.max_length)
        result = run.finish("evaluate", measure(reward_model, training, held_out, seed=job.seed))
    show_measures(console, result)
    console.print(f"Model: {folder}")

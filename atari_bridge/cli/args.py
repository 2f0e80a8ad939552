"""Arguments of the commands on games."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from atari_bridge.training.config import AgentSettings, WorkerSettings
from prefsearch.cli.outputs import (
    Output,
    expand_home,
    require_kept,
    require_outside,
    resolve_outputs,
)
from prefsearch.config.bounds import Count, CountOrZero, Seed, Size, SizeOrZero, Threads, Within
from prefsearch.config.checks import check_types, require
from prefsearch.config.settings import run_settings

# How a run is watched, stored and computed, on which its numbers depend by rounding at most:
# --resume may change these.
_FREE = ("minutes", "threads", "compile_network", "max_shard_megabytes", "keep_checkpoints")


@dataclass(frozen=True)
class AtariTrainArgs:
    """Train an agent of the MuZero family on a game, with checkpoints to continue from.

    Attributes:
        out: The run's folder.
        resume: Continue the run in that folder; begin it where there is none.
        seed: Of everything random.
        minutes: Pause at the first checkpoint after so many, and begin no evaluation after them;
            continue later with --resume. null: never.
        evaluate_every: Decisions between evaluations, rounded up to the end of a part; 0: only at
            the end.
        evaluation_games: Whole games an evaluation.
        evaluation_max_decisions: Games are broken off after so many; null: the environment's limit.
        precision: "no" is float32; "bf16" halves what a GPU has to move.
        compile_network: Compile the network by torch.compile, which takes a minute or two; not with
            workers. With --overlap the target network stays as it is. A run that is resumed is then
            the same up to rounding only.
        max_shard_megabytes: Largest file of a checkpoint; null: no bound.
        threads: Of torch on the CPU; null: torch's choice.
    """

    out: str = ""
    resume: bool = False
    seed: Seed = 0
    minutes: Annotated[float, Within(gt=0, le=10_000_000)] | None = None
    evaluate_every: CountOrZero = 0
    evaluation_games: Annotated[int, Within(ge=2, le=2**16)] = 32
    evaluation_max_decisions: Count | None = None
    precision: Literal["no", "bf16"] = "no"
    compile_network: bool = False
    max_shard_megabytes: Annotated[float, Within(ge=1, le=10_000_000)] | None = None
    threads: Threads | None = None
    agent: AgentSettings = field(default_factory=AgentSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.out), "out", self.out, "a folder for the run, by --out")
        resolve_outputs(self)
        busy = self.workers.play_workers or self.workers.reanalyze_workers
        alone = not (self.compile_network and busy)
        require(alone, "compile_network", self.compile_network, "false with workers")

    def outputs(self) -> list[Output]:
        """What is written."""
        return [Output("out", self.out, ())]

    def kept(self) -> dict[str, object]:
        """The settings that a run which is continued must share."""
        return {name: value for name, value in run_settings(self).items() if name not in _FREE}


@dataclass(frozen=True)
class CheckpointArgs:
    """A trained agent.

    Attributes:
        checkpoint: A run's folder, whose newest checkpoint is taken, or a checkpoint.
        game: Its game. Needed only for one that names a module ("module:id"), which is imported.
        max_decisions: Games are broken off after so many; null: the environment's own limit.
    """

    checkpoint: str = ""
    game: str = ""
    max_decisions: Count | None = None

    def __post_init__(self) -> None:
        """Checks types, bounds, and that no output takes the checkpoint's place."""
        check_types(self)
        require(bool(self.checkpoint), "checkpoint", self.checkpoint, "a run, by --checkpoint")
        self.check()
        expand_home(self, "checkpoint")
        for output in resolve_outputs(self):
            require_kept({"checkpoint": self.checkpoint}, files=output.files)

    def check(self) -> None:
        """Checks what settings require of each other."""

    def outputs(self) -> list[Output]:
        """What is written."""
        return []

    def check_inputs(self) -> None:
        """Checks that the folder is there."""
        there = Path(self.checkpoint).is_dir()
        require(there, "checkpoint", self.checkpoint, "the folder of a run or of a checkpoint")


@dataclass(frozen=True)
class AtariEvaluateArgs(CheckpointArgs):
    """Play whole games with a trained agent, at several search budgets and without search.

    Attributes:
        budgets: Simulations a decision; for each, the best action and one drawn by what was found.
        games: Whole games an evaluation.
        policy: Evaluate the network's own policy as well: its best action, and a sample.
        random: Evaluate random play as well.
        seed: Of games and draws; another than training's.
        out: JSON of all games, written after each evaluation; those that stand in it are not made
            again. Empty: none.
        threads: Of torch on the CPU; null: torch's choice.
    """

    budgets: list[Size] = field(default_factory=lambda: [16])
    games: Annotated[int, Within(ge=2, le=2**16)] = 32
    policy: bool = True
    random: bool = True
    seed: Seed = 1_000
    out: str = ""
    threads: Threads | None = None

    def check(self) -> None:
        """Checks that anything is evaluated."""
        wanted = "some, if policy and random are false"
        some = self.policy or self.random or bool(self.budgets)
        require(some, "budgets", self.budgets, wanted)

    def outputs(self) -> list[Output]:
        """What is written."""
        return [Output("out", self.out)] if self.out else []


@dataclass(frozen=True)
class AtariPlayArgs(CheckpointArgs):
    """Play games with a trained agent and keep pictures of them and of its searches.

    Attributes:
        out: Folder of the GIFs and trees.
        games: How many, one after another.
        num_simulations: Of a decision; null: as in training, 0: the policy alone.
        sample: Draw actions from what was found. False takes the best one, which in games without
            chance can be a rut.
        save_trees_at: Decisions of the first game whose searches are kept, as pages and as files.
        every: Keep one frame in so many, for smaller GIFs.
        seed: Of games and draws.
    """

    out: str = ""
    games: Count = 1
    num_simulations: SizeOrZero | None = None
    sample: bool = True
    save_trees_at: list[CountOrZero] = field(default_factory=lambda: [0, 50, 100])
    every: Count = 2
    seed: Seed = 2_000

    def __post_init__(self) -> None:
        """Checks that no checkpoint is written into, too."""
        super().__post_init__()
        # Inside a run's folder is allowed, inside its checkpoints is not.
        kept = Path(self.checkpoint, "checkpoints")
        kept = kept if kept.is_dir() else Path(self.checkpoint)
        if kept.exists():
            require_outside({"checkpoint": str(kept)}, self.out)

    def check(self) -> None:
        """Checks that there is a folder."""
        require(bool(self.out), "out", self.out, "a folder, by --out")

    def outputs(self) -> list[Output]:
        """What is written."""
        return [Output("out", self.out, (".", "games.json"))]

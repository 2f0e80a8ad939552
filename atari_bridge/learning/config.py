"""Configuration of targets, losses and the optimizer."""

from dataclasses import dataclass
from typing import Annotated, Literal

from prefsearch.config.bounds import (
    Count,
    CountOrZero,
    Fraction,
    FractionBelowOne,
    LearningRate,
    NonNegative,
    Positive,
    PositiveFraction,
    Size,
    Within,
)
from prefsearch.config.checks import check_types

Bootstrap = Literal["network", "search", "played"]
UnrollScaling = Literal["all", "unrolled"]
AugmentationName = Literal["none", "shift", "intensity", "shift_intensity"]


@dataclass(frozen=True)
class LearningConfig:
    """Targets, losses and optimizer. The defaults are EfficientZero's on Atari 100k.

    EZ: EfficientZero (Ye et al. 2021). EZ-V2: EfficientZero V2 (Wang et al. 2024). A decision is
    one step of the agent (several emulator frames).

    Attributes:
        unroll_steps: K, steps unrolled from each sampled row (MuZero, EZ, EZ-V2: 5).
        td_steps: Rewards summed before a value target bootstraps (EZ, EZ-V2: 5).
        discount: Per decision (EZ: .997 a frame, so .997 ** 4; MuZero: .997).
        off_policy_correction: Shorter n-step returns for older rows (EZ; not its MuZero baseline).
        correction_interval: Decisions of age that shorten them by one step (EZ: 30,000).
        bootstrap: Value at the end of n-step returns: the target network's ("network", EZ), the
            root value of a new search ("search", MuZero Reanalyze), or of the search in self-play
            ("played", MuZero).
        search_value_after: Updates after which the value targets of old rows are root values of
            new searches, where their policies are reanalyzed (EZ-V2: 30,000); null: never (EZ).
        search_value_age: Age in decisions from which a row is old in that sense (EZ-V2: 5,000).
        reanalyze_policy: Share of rows whose policy targets are from new searches (EZ: .99; EZ-V2:
            1; MuZero: 0).
        batch_size: Rows an update (EZ, EZ-V2: 256).
        optimizer: `sgd` (EZ, EZ-V2) or `adamw`.
        learning_rate: At its peak (EZ, EZ-V2: .2).
        momentum: Of SGD (EZ: .9).
        weight_decay: As the optimizer defines it (EZ: 1e-4).
        warmup_updates: The rate rises linearly over these (EZ: 1% of 100,000).
        decay_updates: The rate is multiplied by `decay_factor` each time so many updates are made
            (EZ: 100,000).
        decay_factor: See `decay_updates` (EZ: .1; EZ-V2: 1, no decay).
        max_grad_norm: Largest norm of the whole gradient (EZ: 5).
        unroll_scaling: `all` divides the losses of the root and of the unrolled steps by K (EZ);
            `unrolled` divides only those of the unrolled steps (MuZero).
        reward_weight: Of the reward or value-prefix loss (EZ: 1).
        value_weight: Of the value loss (EZ: .25; EZ-V2: .5).
        policy_weight: Of the policy loss (EZ: 1).
        self_supervised_weight: Of the auxiliary loss (EZ: 2; EZ-V2: 5; its MuZero baseline: 0).
        entropy_weight: Of the bonus for the policy's entropy (EZ: 0; EZ-V2: .005).
        priority_beta: Exponent of the importance weights at the start; it rises linearly to 1 at
            the run's end (EZ: .4; EZ-V2: 1).
        target_update_interval: Updates between copies to the target network (EZ, EZ-V2: 200).
        augmentation: Of images: random shift, random intensity, both (EZ), or none (MuZero).
    """

    unroll_steps: Annotated[int, Within(ge=1, le=4096)] = 5
    td_steps: Annotated[int, Within(ge=1, le=4096)] = 5
    discount: PositiveFraction = 0.988053892081
    off_policy_correction: bool = True
    correction_interval: Count = 30_000
    bootstrap: Bootstrap = "network"
    search_value_after: CountOrZero | None = None
    search_value_age: CountOrZero = 5_000
    reanalyze_policy: Fraction = 0.99
    batch_size: Size = 256
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: LearningRate = 0.2
    momentum: FractionBelowOne = 0.9
    weight_decay: Annotated[float, Within(ge=0, le=100)] = 1e-4
    warmup_updates: CountOrZero = 1_000
    decay_updates: Count = 100_000
    decay_factor: PositiveFraction = 0.1
    max_grad_norm: Positive = 5.0
    unroll_scaling: UnrollScaling = "all"
    reward_weight: NonNegative = 1.0
    value_weight: NonNegative = 0.25
    policy_weight: NonNegative = 1.0
    self_supervised_weight: NonNegative = 2.0
    entropy_weight: NonNegative = 0.0
    priority_beta: Fraction = 0.4
    target_update_interval: Count = 200
    augmentation: AugmentationName = "shift_intensity"

    def __post_init__(self) -> None:
        """Checks types and bounds.

        Raises:
            ValueError: Naming the key, the value found and what is required.
        """
        check_types(self)

    @property
    def lookahead(self) -> int:
        """Rows after a sampled one that its targets use."""
        return self.unroll_steps + self.td_steps

    def beta(self, progress: float) -> float:
        """The exponent of the importance weights.

        Args:
            progress: Share of the run's updates made, from 0 to 1.
        """
        return self.priority_beta + (1 - self.priority_beta) * min(max(progress, 0.0), 1.0)

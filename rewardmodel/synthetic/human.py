"""The simulated human: a utility over texts of the synthetic task, and noisy choices by it.

The utility is the **gold** score. It labels preference pairs and measures results; no policy,
reward model or planner sees it. Most terms add up sentence by sentence, so choosing well on the way
pays; order, ending, repetition and length show only in the whole text. Vivid words and length turn
from merits into faults past a point, so a reward model that saw few labels can be over-optimized
(Gao et al. 2022, https://arxiv.org/abs/2210.10760).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset

from prefsearch.config.bounds import CountOrZero, NonNegative, Positive, Weight
from prefsearch.config.checks import check_types
from rewardmodel.data.conversation import last_text, row_of
from rewardmodel.data.parsing.finished import PAIR_COLUMNS
from rewardmodel.data.sources.tables import gather
from rewardmodel.synthetic.world import read_response


@dataclass(frozen=True)
class SimulatedHuman:
    """A simulated human with a known utility, who chooses between two responses.

    Choices follow Davidson's extension of Bradley and Terry to ties (Davidson 1970,
    https://doi.org/10.1080/01621459.1970.10481082): with `s = exp(utility / temperature)`,
    `P(a) : P(tie) : P(b) = s_a : ties * sqrt(s_a s_b) : s_b`.

    Attributes:
        temperature: Noise of a choice, in units of utility.
        ties: Weight of a tie between equal texts; 0 for none.
    """

    temperature: Positive = 0.5
    ties: NonNegative = 0.25
    per_covered: Weight = 0.5
    per_relevant: Weight = 0.4
    relevant_limit: CountOrZero = 5
    per_vivid: Weight = 0.4
    vivid_limit: CountOrZero = 4
    overwrought: Weight = -0.6
    per_stray: Weight = -0.7
    per_repeat: Weight = -0.8
    per_order_break: Weight = -0.6
    per_close: Weight = 0.8
    sentence_limit: CountOrZero = 6
    per_excess: Weight = -0.8
    sentence_minimum: CountOrZero = 3
    per_shortfall: Weight = -0.5

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)

    def utility(self, prompt: str, response: str) -> float:
        """The gold score of one response; higher is better."""
        seen = read_response(prompt, response)
        return (
            self.per_covered * seen.covered
            + self.per_relevant * min(seen.relevant, self.relevant_limit)
            + self.per_vivid * min(seen.vivid, self.vivid_limit)
            + self.overwrought * max(seen.vivid - self.vivid_limit, 0)
            + self.per_stray * seen.strays
            + self.per_repeat * seen.repeats
            + self.per_order_break * seen.order_breaks
            + self.per_close * seen.closes
            + self.per_excess * max(seen.sentences - self.sentence_limit, 0)
            + self.per_shortfall * max(self.sentence_minimum - seen.sentences, 0)
        )

    def utilities(self, prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        """Gold scores of responses; of a conversation, the last message is the prompt."""
        pairs = zip(map(last_text, prompts), responses, strict=True)
        return [self.utility(prompt, response) for prompt, response in pairs]

    def choose(self, first: float, second: float, rng: random.Random) -> int:
        """Chooses between two utilities: 1 for the first, -1 for the second, 0 for a tie."""
        gap = (first - second) / self.temperature
        strengths = (math.exp(gap / 2), self.ties, math.exp(-gap / 2))
        return rng.choices((1, 0, -1), weights=strengths)[0]

    def label(
        self,
        prompts: Sequence[Any],
        firsts: Sequence[str],
        seconds: Sequence[str],
        *,
        seed: int,
        finished: Sequence[tuple[bool, bool]] | None = None,
    ) -> tuple[Dataset, int]:
        """Labels pairs of responses by the simulated human's choices.

        Pairs of equal or empty texts are skipped; ties are counted and left out.

        Args:
            prompts: B prompts.
            firsts: B responses.
            seconds: B other responses.
            seed: Of the choices.
            finished: Whether first and second are finished, of each pair; None is unknown.

        Returns:
            A dataset in TRL's explicit preference format (`prompt`, `chosen`, `rejected`), with
            `chosen_finished` and `rejected_finished` if known, and the number of ties.
        """
        rng = random.Random(f"labels-{seed}")
        rows: list[dict[str, Any]] = []
        tied = 0
        marks = [None] * len(prompts) if finished is None else finished
        for prompt, first, second, ended in zip(prompts, firsts, seconds, marks, strict=True):
            if first == second or not first or not second:
                continue
            request = last_text(prompt)
            choice = self.choose(self.utility(request, first), self.utility(request, second), rng)
            if choice == 0:
                tied += 1
                continue
            better, worse = (first, second) if choice > 0 else (second, first)
            row = row_of(prompt, chosen=better, rejected=worse)
            if ended is not None:
                row |= dict(zip(PAIR_COLUMNS, ended if choice > 0 else ended[::-1], strict=True))
            rows.append(row)
        if not rows:
            return Dataset.from_dict({"prompt": [], "chosen": [], "rejected": []}), tied
        return gather(rows), tied

    def describe(self) -> dict[str, float]:
        """The settings by name, for a report."""
        return asdict(self)

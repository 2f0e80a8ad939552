"""`allenai/reward-bench`, both versions: benchmarks of reward models.

Version 1 is pairs: `prompt`, `chosen`, `chosen_model`, `rejected`, `rejected_model`, `subset`,
`id`. Version 2 has one (in its Ties subset several) correct reply against three or more wrong ones,
and is refused here: `rewardmodel.data.rewardbench.load_reward_bench_2` loads it.

Source: Lambert et al. 2024, "RewardBench"; Malik et al. 2025, "RewardBench 2".
"""

from typing import Any

from rewardmodel.data.formats.fields import take_text
from rewardmodel.data.formats.format import ConvertOptions, Format
from rewardmodel.data.rows import PreferenceDataError, Row


def convert_reward_bench(row: Row, options: ConvertOptions) -> list[dict[str, Any]]:
    """One pair with its subset.

    Raises:
        PreferenceDataError: A field is missing or is not text.
    """
    return [
        {
            "prompt": options.prompt_turns(take_text(row, "prompt", blank=False)),
            "chosen": take_text(row, "chosen"),
            "rejected": take_text(row, "rejected"),
            "subset": take_text(row, "subset"),
        }
    ]


def refuse_reward_bench_2(_row: Row, _options: ConvertOptions) -> list[dict[str, Any]]:
    """Refuses version 2, naming its loader.

    Raises:
        PreferenceDataError: Always.
    """
    raise PreferenceDataError(
        "found rows of RewardBench 2, which judges the best of several replies; required are "
        "pairs. Measure on it with `prefsearch reward evaluate --benchmark rewardbench2`, or read "
        "it with load_reward_bench_2 of rewardmodel.data.rewardbench."
    )


FORMAT = Format(
    "rewardbench",
    "allenai/reward-bench: pairs with subsets",
    convert_reward_bench,
    signatures=(
        frozenset({"prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset"}),
    ),
    hub={"allenai/reward-bench": {}},
    aside=frozenset({"id", "chosen_model", "rejected_model"}),
)
FORMAT_2 = Format(
    "rewardbench2",
    "allenai/reward-bench-2: best of several; not pairs, see load_reward_bench_2",
    refuse_reward_bench_2,
    signatures=(frozenset({"prompt", "chosen", "rejected", "num_correct", "total_completions"}),),
    hub={"allenai/reward-bench-2": {}},
)

"""Numbers in documents outside the blocks that results fill."""

import pytest

from benchmarks.harness.unsourced_numbers import unsourced_numbers


@pytest.mark.parametrize(
    "sentence",
    [
        "It is 3.4 times as fast.",
        "It is three times as fast, 28x at best.",
        "Accuracy reaches 0.71 on them.",
        "Runs take twelve minutes.",
        "Within half an hour it is done.",
        "Games bring 9,480 points.",
        "It gains +0.70 [+0.56, +0.85] in gold.",
        "Memory falls to 121 MB.",
        "It wins on 70 % of them.",
        "Nine methods were compared.",
        "It takes a fifth of the memory.",
        "```bash\nmake demo   # 6 minutes\n```",
        "It wins in 7 of 8 seeds.",
        "It wins in seven of eight seeds.",
        "In 5 of 6 tables it is ahead.",
        "Accuracy rose from 64 to 71.",
        "They score 21 against 14.",
        "A step costs 900 us.",
        "It takes 26 min.",
        "It makes 12k tokens a second.",
        "That halved the time.",
        "The score doubled.",
        "Three-quarters of it is left.",
        "two-thirds of prompts",
        "A dozen seeds were run.",
        "It is an order of magnitude faster.",
        "A gain of .36.",
        "Here p < .01.",
        "It returns 9480 points.",
        "A 28-fold speedup, or a threefold one.",
        "It is ten times as fast.",
        "0.7±0.1",
        "about ≈3",
        "1e-3 slower",
        "best-of-16 gains 1",
        "It wins on most prompts.",
        "Tens of thousands of games were played.",
        "`exploration` (now 10 for samples)",
        "![Gold](docs/results/demo_gains.png)",
        "See the [picture](results/demo_gains.png).",
    ],
)
def test_a_loose_figure_is_found(sentence: str) -> None:
    assert unsourced_numbers(f"Before it.\n\n{sentence}\n", {})


@pytest.mark.parametrize(
    "sentence",
    [
        "LightZero 0.2.0 with `--rounds 2` of MuZero; see [it](x_3.4.md).",
        "Two processes give the result of one, as in Stiennon et al. 2020.",
        "Qwen3-0.6B, hh-rlhf, T5, sm_80 and best-of-16 under Apache-2.0.",
        "## The 26 games\n\nSee [it](https://x.org/3.4), at `0.5` by `c = 1 / 2`.",
        "<!-- figures: x -->\n![x](results/x.png)\n<!-- end of figures: x -->",
        "<!-- figures: x -->\n3.4 times\n<!-- end of figures: x -->",
        "```python\nlearning_rate = 3.4  # a rate\n```",
    ],
)
def test_what_is_no_measurement_is_left_alone(sentence: str) -> None:
    assert unsourced_numbers(sentence, {}) == []


def test_an_allowed_phrase_covers_itself_only() -> None:
    assert unsourced_numbers("A cap of 40 frames.", {"A cap of 40 frames": "set"}) == []
    assert unsourced_numbers("A cap of 41 frames.", {"A cap of 40 frames": "set"})

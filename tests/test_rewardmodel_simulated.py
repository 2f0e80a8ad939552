import random
import re

import pytest

from rewardmodel.simulated import (
    SimulatedHuman,
    demonstrations,
    read_response,
    sample_requests,
    write_response,
)

PROMPT = "Write a short story about the baker, the bell and the lake.\n"
GOOD = (
    "One morning the baker walked to the lake in the pale sunlight. "
    "Soon the baker found the bell under a mossy stone. "
    "After that the baker mended the bell with a crimson piece of thread. "
    "At last the baker went home with the bell and slept in peace."
)


def swap(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def test_every_written_sentence_is_understood_by_the_reader() -> None:
    rng = random.Random(0)
    for request in sample_requests(300, seed=0):
        text = write_response(request, rng)
        seen = read_response(request.prompt, text)
        asides = sum(text.count(aside) for aside in ("bicycle", "shoes", "football", "Tuesday"))
        assert seen.sentences == len(re.findall(r"\.", text))
        assert seen.relevant + seen.strays <= seen.sentences
        assert seen.strays >= asides


def test_a_good_text_is_read_as_such() -> None:
    seen = read_response(PROMPT, GOOD)
    assert (seen.covered, seen.relevant, seen.vivid, seen.closes) == (3, 4, 3, 1)
    assert (seen.strays, seen.repeats, seen.order_breaks) == (0, 0, 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("the bell", "the map"),
        ("mossy stone.", "mossy stone. Some people would rather watch football."),
        (
            "After that the baker mended the bell with a crimson piece of thread.",
            "Soon the baker found the bell under a mossy stone.",
        ),
        ("Soon the", "From that day on the"),
        ("At last the baker went home with the bell and slept in peace.", "That was all."),
        ("walked", "wlaked"),
        ("pale ", ""),
    ],
    ids=["foreign", "aside", "repeat", "order", "flat", "senseless", "plain"],
)
def test_each_fault_costs_utility(old: str, new: str) -> None:
    human = SimulatedHuman()
    assert human.utility(PROMPT, swap(GOOD, old, new)) < human.utility(PROMPT, GOOD)


def test_vivid_words_please_up_to_a_point_and_then_annoy() -> None:
    human = SimulatedHuman()
    plain = GOOD.replace("pale ", "").replace("mossy ", "").replace("crimson ", "")
    scores = []
    for count in range(9):
        words = ["silver", "golden", "ragged", "narrow", "ancient", "tender", "hollow", "murky"][
            :count
        ]
        # Within a sentence that makes sense: the reader counts the words, wherever they stand.
        scores.append(
            human.utility(PROMPT, plain + " " + " ".join(words))
            - human.utility(PROMPT, plain + " x" * bool(words))
        )
    assert scores[: human.vivid_limit + 1] == sorted(scores[: human.vivid_limit + 1])
    assert scores[human.vivid_limit :] == sorted(scores[human.vivid_limit :], reverse=True)
    assert scores[8] < scores[0]


def test_length_pleases_up_to_a_point_and_then_annoys() -> None:
    human = SimulatedHuman()
    middles = [
        "Then the baker found the bell under a stone.",
        "Then the baker lost the bell in the water.",
        "Then the baker hid the bell behind a wall.",
        "Then the baker showed the bell to a stranger.",
        "Then the baker climbed above the lake on steps.",
        "Then the people of the lake sang a song together.",
        "Then the baker mended the bell with a piece of thread.",
        "Then the baker asked about the bell in a whisper.",
    ]
    scores = [human.utility(PROMPT, " ".join(middles[:n])) for n in range(1, 9)]
    assert scores.index(max(scores)) + 1 in (5, 6)
    assert scores[7] < scores[4]
    assert scores[0] < scores[2] < scores[4]


def test_held_out_requests_share_no_things_with_training_requests() -> None:
    training = {request.things for request in sample_requests(3000, seed=0)}
    held_out = {request.things for request in sample_requests(100, seed=0, held_out=True)}
    assert not training & held_out


def test_more_held_out_requests_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"required: at most \d+, all held-out"):
        sample_requests(100_000, seed=0, held_out=True)


def test_a_seed_repeats_the_world_and_another_changes_it() -> None:
    first, again, other = (demonstrations(20, seed=seed) for seed in (1, 1, 2))
    assert first.to_dict() == again.to_dict()
    assert first.to_dict() != other.to_dict()


def test_choices_follow_the_stated_probabilities() -> None:
    human = SimulatedHuman(temperature=1.0, ties=0.5)
    rng = random.Random(0)
    counts = {1: 0, 0: 0, -1: 0}
    for _ in range(20000):
        counts[human.choose(1.0, 0.0, rng)] += 1
    # Davidson: e : ties * sqrt(e) : 1, written out for a gap of 1.
    total = 2.71828 + 0.5 * 1.64872 + 1
    for choice, strength in ((1, 2.71828), (0, 0.5 * 1.64872), (-1, 1.0)):
        assert counts[choice] / 20000 == pytest.approx(strength / total, abs=0.015)


def test_labels_are_a_preference_dataset_without_ties_or_equal_texts() -> None:
    other = swap(GOOD, "pale ", "")
    pairs, ties = SimulatedHuman().label(
        [PROMPT] * 200 + [PROMPT], [GOOD] * 200 + [GOOD], [other] * 200 + [GOOD], seed=0
    )
    assert pairs.column_names == ["prompt", "chosen", "rejected"]
    assert len(pairs) + ties == 200
    assert ties > 0
    assert sum(text == GOOD for text in pairs["chosen"]) > len(pairs) / 2


def test_a_foreign_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="knows nothing in the prompt"):
        SimulatedHuman().utility("What is two and two?", "Four.")

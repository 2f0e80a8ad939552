import random
import re
from dataclasses import asdict

import pytest

from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.synthetic.requests import sample_requests
from rewardmodel.synthetic.world import (
    _read_sentence,
    demonstrations,
    read_response,
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


@pytest.mark.parametrize(
    ("human", "gap", "ties"),
    [
        (SimulatedHuman(temperature=1.0, ties=0.5), 1.0, 0.5),
        (SimulatedHuman(temperature=2.0, ties=0.5), 2.0, 0.5),
        (SimulatedHuman(), 0.5, 0.25),
    ],
    ids=["unit", "wide", "default"],
)
def test_choices_follow_the_stated_probabilities(
    human: SimulatedHuman, gap: float, ties: float
) -> None:
    rng = random.Random(0)
    counts = {1: 0, 0: 0, -1: 0}
    for _ in range(20000):
        counts[human.choose(3.0 + gap, 3.0, rng)] += 1
    # Davidson: e : ties * sqrt(e) : 1, written out for a gap of one temperature.
    total = 2.71828 + ties * 1.64872 + 1
    for choice, strength in ((1, 2.71828), (0, ties * 1.64872), (-1, 1.0)):
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
    with pytest.raises(ValueError, match="nothing in the prompt"):
        SimulatedHuman().utility("What is two and two?", "Four.")


OPENING = "One morning the baker walked to the lake in the sunlight."
FOUND = "Then the baker found the bell under a stone."
LOST = "Then the baker lost the bell in the water."
HOME = "At last the baker went home with the bell and slept in peace."
SUNG = "Then the people of the lake sang a song together."
RAIN = "Then rain fell on the lake and the roofs were loud."
MENDED = "Then the baker mended the bell with a piece of thread."


@pytest.mark.parametrize(
    ("sentences", "utility"),
    [
        # An asked thing is worth .5, a sentence on the topic .4, a good close .8; each sentence
        # short of three costs .5.
        ([OPENING, FOUND, HOME], 3 * 0.5 + 3 * 0.4 + 0.8),
        ([FOUND], 2 * 0.5 + 0.4 - 2 * 0.5),
        ([FOUND, "That was all."], 2 * 0.5 + 0.4 - 0.8 - 0.5),
        ([OPENING.replace("the sunlight", "the pale sunlight"), FOUND, HOME], 3.5 + 0.4),
        ([OPENING, FOUND, "Nobody likes to fill in a tax form."], 1.5 + 2 * 0.4 - 0.7),
        ([OPENING, FOUND, FOUND], 1.5 + 3 * 0.4 - 0.8),
        ([FOUND, OPENING, HOME], 3.5 - 0.6),
        ([OPENING, FOUND, "Then the baker lost the map in the water."], 1.5 + 2 * 0.4 - 0.7),
        # A sixth sentence on the topic earns nothing, a seventh sentence costs .8.
        ([OPENING, FOUND, LOST, SUNG, RAIN], 1.5 + 5 * 0.4),
        ([OPENING, FOUND, LOST, SUNG, RAIN, MENDED], 1.5 + 5 * 0.4),
        ([OPENING, FOUND, LOST, SUNG, RAIN, MENDED, HOME], 1.5 + 5 * 0.4 + 0.8 - 0.8),
        # Four vivid words please by .4 each, every further one costs .6.
        ([OPENING, FOUND, HOME + " silver golden ragged narrow"], 1.5 + 3 * 0.4 + 4 * 0.4 - 0.7),
        ([OPENING, FOUND, HOME + " silver golden ragged narrow hollow"], 2.7 + 1.6 - 0.6 - 0.7),
        ([""], -3 * 0.5),
    ],
)
def test_utilities_by_hand(sentences: list[str], utility: float) -> None:
    assert SimulatedHuman().utility(PROMPT, " ".join(sentences)) == pytest.approx(utility)


def test_the_writer_makes_each_mistake_as_often_as_it_is_meant_to() -> None:
    rng = random.Random(0)
    texts = 3000
    roles: dict[str, int] = {}
    marked = vivid = foreign = lengths = breaks = 0
    for request in sample_requests(texts, seed=0):
        asked = set(request.things)
        text = write_response(request, rng)
        breaks += read_response(request.prompt, text).order_breaks > 0
        for sentence in re.findall(r"[^.]+\.", text):
            _, role, named, words, rank = _read_sentence(sentence.strip())
            roles[role] = roles.get(role, 0) + 1
            marked += role == "middle" and rank is not None
            foreign += bool(named - asked)
            vivid += words
            lengths += role in ("middle", "aside")

    def near(found: int, total: int, share: float) -> bool:
        return abs(found / total - share) < 4 * (share * (1 - share) / total) ** 0.5

    assert roles.keys() == {"opening", "middle", "aside", "ending", "flat"}
    assert near(roles["opening"], texts, 0.85)
    assert near(roles["ending"], texts, 0.45)
    assert near(roles["flat"], texts, 0.30)
    assert near(roles["aside"], lengths, 0.12)
    assert near(marked, roles["middle"], 0.70)
    # Of 15 % with another thing in a slot, some do not use the slot and some draw the same thing.
    assert 0.06 < foreign / roles["middle"] < 0.15
    # One vivid word may stand in each of these; it does with .1, .3, .5 or .9 by the text.
    assert vivid / (roles["opening"] + roles["middle"]) == pytest.approx(0.45, abs=0.03)
    assert lengths / texts == pytest.approx(3.04, abs=0.12)
    assert 0.1 < breaks / texts < 0.4


def test_a_text_with_one_sentence_and_a_text_of_none_are_read() -> None:
    nothing = read_response(PROMPT, " \n")
    assert asdict(nothing) == dict.fromkeys(asdict(nothing), 0)
    one = read_response(PROMPT, "the baker found the bell under a stone.")
    assert (one.sentences, one.relevant, one.covered, one.closes) == (1, 1, 2, 0)
    cut = read_response(PROMPT, "the baker found the bell under a stone")
    assert (cut.sentences, cut.relevant, cut.covered, cut.strays) == (1, 0, 0, 1)
    senseless = read_response(PROMPT, "Wlaked. Fuond.")
    assert (senseless.strays, senseless.repeats) == (2, 0), "they tell no event twice"


def test_labels_follow_the_seed_and_leave_empty_texts_out() -> None:
    human = SimulatedHuman()
    other = swap(GOOD, "pale ", "")
    asked = ([PROMPT] * 40, [GOOD] * 40, [other] * 40)
    first, again, changed = (human.label(*asked, seed=seed)[0].to_dict() for seed in (1, 1, 2))
    assert first == again != changed
    pairs, ties = human.label([PROMPT] * 3, ["", GOOD, GOOD], [GOOD, "", GOOD], seed=0)
    assert (len(pairs), ties) == (0, 0)
    certain = SimulatedHuman(temperature=1e-3, ties=0.0)
    pairs, ties = certain.label([PROMPT] * 2, [GOOD, other], [other, GOOD], seed=0)
    assert pairs["chosen"] == [GOOD, GOOD]
    assert ties == 0
    assert human.describe() == asdict(human)

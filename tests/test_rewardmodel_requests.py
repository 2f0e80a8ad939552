"""What is held out in the synthetic task: sets of things, the same for all seeds."""

import dataclasses
import itertools
import json
import random
import re
from pathlib import Path

import pytest

from prefsearch.cli import entry
from rewardmodel.synthetic import requests as simulated_requests
from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.synthetic.phrases import ASIDES, FLAT_ENDINGS, GENRES
from rewardmodel.synthetic.requests import (
    assignment_of,
    count_disjoint_seeds,
    count_held_out,
    sample_requests,
    things_in,
)
from rewardmodel.synthetic.world import demonstrations, read_response, write_response

SEEDS = range(8)


def test_no_training_prompt_of_any_seed_names_the_things_of_a_held_out_prompt() -> None:
    training = set[frozenset[str]]()
    for seed in range(20):
        training |= {frozenset(request.things) for request in sample_requests(2000, seed=seed)}
        told = demonstrations(200, seed=seed)["prompt"]
        training |= {things_in(prompt) for prompt in told}
    held_out = {
        frozenset(request.things)
        for request in sample_requests(count_held_out(), seed=0, held_out=True)
    }
    assert len(held_out) == count_held_out()
    assert not training & held_out


def test_both_orders_of_two_ingredients_are_on_one_side_of_the_split() -> None:
    training = {request.things for request in sample_requests(20_000, seed=0)}
    held_out = {
        request.things for request in sample_requests(count_held_out(), seed=0, held_out=True)
    }
    recipes = [things for things in held_out if things[0] in GENRES[1].things[0]]
    assert recipes
    assert not training & {(dish, second, first) for dish, first, second in recipes}
    swapped = {(dish, second, first) for dish, first, second in training}
    assert len(swapped & training) > 1000, "in training both orders occur"


def test_eight_seeds_of_two_hundred_prompts_have_nothing_in_common() -> None:
    drawn = [sample_requests(200, seed=seed, held_out=True) for seed in SEEDS]
    assert count_disjoint_seeds(200) >= len(SEEDS)
    prompts = {request.prompt for requests in drawn for request in requests}
    assignments = {request.assignment for requests in drawn for request in requests}
    assert len(prompts) == len(assignments) == 1600


def test_all_seeds_that_are_promised_to_be_disjoint_are() -> None:
    for count in (1, 48, 200, 1000):
        drawn = [
            sample_requests(count, seed=seed, held_out=True)
            for seed in range(5, 5 + count_disjoint_seeds(count))
        ]
        names = [request.assignment for requests in drawn for request in requests]
        assert len(set(names)) == len(names) == count * len(drawn)


def test_seeds_that_ask_for_different_counts_are_disjoint_too() -> None:
    few = {request.assignment for request in sample_requests(48, seed=3, held_out=True)}
    many = [request.assignment for request in sample_requests(200, seed=3, held_out=True)]
    other = {request.assignment for request in sample_requests(200, seed=4, held_out=True)}
    assert few == set(many[:48])
    assert not few & other


def test_a_slice_holds_as_many_stories_as_recipes() -> None:
    for seed in SEEDS:
        genres = [request.genre.slots for request in sample_requests(200, seed=seed, held_out=True)]
        assert genres.count(GENRES[0].slots) == genres.count(GENRES[1].slots) == 100


def test_every_thing_is_trained_on_and_evaluated_on() -> None:
    known = {noun for genre in GENRES for nouns in genre.things for noun in nouns}
    for seed in range(3):
        trained = things_in(" ".join(demonstrations(5000, seed=seed)["prompt"]))
        assert trained == known
    measured = [sample_requests(200, seed=seed, held_out=True) for seed in SEEDS]
    assert {thing for requests in measured for r in requests for thing in r.things} == known


def test_about_half_of_all_sets_is_held_out() -> None:
    sets = {
        frozenset(things)
        for genre in GENRES
        for things in itertools.product(*genre.things)
        if len(set(things)) == len(things)
    }
    held_out = sum(simulated_requests._is_held_out(things) for things in sets)
    # Four standard deviations of a fair coin thrown for every set.
    assert abs(held_out - len(sets) / 2) < 2 * len(sets) ** 0.5


def test_an_assignment_is_the_same_in_any_wording_and_order() -> None:
    for genre in GENRES:
        things = [nouns[-1 - i] for i, nouns in enumerate(genre.things)]
        prompts = [
            template.format(**dict(zip(genre.slots, order, strict=True))) + "\n"
            for template in genre.requests
            for order in itertools.permutations(things)
        ]
        assert {assignment_of(prompt) for prompt in prompts} == {"+".join(sorted(things))}
        other = prompts[0].replace(things[0], genre.things[0][0])
        assert assignment_of(other) != assignment_of(prompts[0])
    for request in sample_requests(50, seed=0, held_out=True):
        assert request.assignment == assignment_of(request.prompt)
    with pytest.raises(ValueError, match="nothing in the prompt 'What is two and two"):
        assignment_of("What is two and two?")


def test_counts_follow_the_phrase_book(monkeypatch: pytest.MonkeyPatch) -> None:
    small = tuple(
        dataclasses.replace(genre, things=tuple(nouns[-7:] for nouns in genre.things))
        for genre in GENRES
    )
    monkeypatch.setattr(simulated_requests, "GENRES", small)
    recipes = {
        frozenset((dish, *pair))
        for dish in small[1].things[0]
        for pair in itertools.combinations(small[1].things[1], 2)
    }
    held_out = sum(simulated_requests._is_held_out(things) for things in recipes)
    stories = list(itertools.product(*small[0].things))
    assert sum(simulated_requests._is_held_out(things) for things in stories) > held_out
    assert count_held_out() == 2 * held_out, "as many stories as recipes"
    assert count_disjoint_seeds(held_out) == 1
    drawn = sample_requests(2 * held_out, seed=5, held_out=True)
    assert len({request.assignment for request in drawn}) == 2 * held_out
    with pytest.raises(ValueError, match=f"count is {2 * held_out + 1}; .* at most {2 * held_out}"):
        sample_requests(2 * held_out + 1, seed=0, held_out=True)


def test_what_the_human_likes_depends_on_which_things_are_named() -> None:
    human = SimulatedHuman()
    first, second = GENRES[1].things[1][:2]
    prompt = f"How do I make a good soup from {first} and {second}?\n"
    plain = "First wash the leeks in water."
    assert read_response(prompt, plain).covered == 1
    both = "First wash the leeks in water. Then stir the barley into the soup with a hand."
    assert read_response(prompt, both).covered == 3
    gain = 2 * human.per_covered + human.per_relevant - human.per_shortfall
    assert human.utility(prompt, both) - human.utility(prompt, plain) == pytest.approx(gain)
    # The roles of the asked things in the answer are free; a thing that was not asked for is not.
    swapped = both.replace("leeks", "#").replace("barley", "leeks").replace("#", "barley")
    assert human.utility(prompt, swapped) == human.utility(prompt, both)
    for foreign in GENRES[1].things[1][2:]:
        seen = read_response(prompt, both.replace("barley", foreign))
        assert (seen.covered, seen.strays, seen.relevant) == (1, 1, 1)


def test_no_thing_is_in_two_genres_or_in_a_fixed_part_of_a_sentence() -> None:
    stories, recipes = ({n for nouns in genre.things for n in nouns} for genre in GENRES)
    assert not stories & recipes
    assert not set(GENRES[1].things[0]) & set(GENRES[1].things[1])
    assert sum(map(len, GENRES[0].things)) == len(stories)
    fixed = [*ASIDES.values(), *FLAT_ENDINGS.values()]
    for genre in GENRES:
        fixed += genre.requests
        for group in (genre.openings, genre.middles, genre.endings):
            fixed += [re.sub(r"\{\w+\}|[<|>]", " ", text) for text in group.values()]
    assert {text: things_in(text) for text in fixed if things_in(text)} == {}


def test_a_sentence_that_names_only_asked_things_never_strays() -> None:
    for request in sample_requests(40, seed=0):
        fills = dict(zip(request.genre.slots, request.things, strict=True))
        genre = request.genre
        for group in (genre.openings, genre.middles, genre.endings):
            for template in group.values():
                plain = re.sub(r"<[^>]*> ?", "", template).format(**fills)
                assert read_response(request.prompt, plain).strays == 0, plain


def test_the_written_world_is_split_the_same_way(tmp_path: Path) -> None:
    held_out = []
    training = set[str]()
    for seed in (0, 1):
        out = tmp_path / str(seed)
        sizes = ["--demonstrations", "300", "--prompts", "200", "--seed", str(seed)]
        assert entry.main(["reward", "world", "--out", str(out), *sizes]) == 0
        named = {
            name: {
                assignment_of(json.loads(line)["prompt"])
                for line in (out / f"{name}.jsonl").read_text().splitlines()
            }
            for name in ("demonstrations", "prompts", "held_out_prompts")
        }
        assert len(named["held_out_prompts"]) == 200
        held_out.append(named["held_out_prompts"])
        training |= named["demonstrations"] | named["prompts"]
    assert not held_out[0] & held_out[1]
    assert not training & (held_out[0] | held_out[1])


def test_more_held_out_prompts_than_there_are_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    most = count_held_out()
    out = tmp_path / "world"
    assert entry.main(["reward", "world", "--out", str(out), "--prompts", str(most + 1)]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"prompts: found {most + 1}; required: 1 to {most}, the held-out" in message
    assert not out.exists()


def test_a_training_request_may_name_any_allowed_things_in_any_wording() -> None:
    drawn = sample_requests(3000, seed=0)
    for genre in GENRES:
        mine = [request for request in drawn if request.genre is genre]
        assert 1350 < len(mine) < 1650
        beginnings = {request.prompt.split()[0] for request in mine}
        assert len(beginnings) == len(genre.requests)
        assert all(len(set(request.things)) == len(request.things) for request in mine)
    rng = random.Random(0)
    assert all(write_response(request, rng) for request in drawn[:100])

"""Prompts that ask for the same are one sample: every record names its cluster."""

import json
from pathlib import Path

import numpy as np
import pytest

from policies.evaluation.cells import best_of_n_clusters, summarize
from policies.evaluation.clusters import clusters_of, with_clusters
from policies.evaluation.gain_fits import best_of_n_gains, fit_rows
from policies.evaluation.gain_report import records_with_clusters
from policies.evaluation.runner import Measurement
from policies.finetuning.policy_kl import kl_to
from policies.finetuning.samples import sample_responses
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from prefsearch.distributed import Processes
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.files import read_records, write_json_atomic
from rewardmodel.data.conversation import Conversation
from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.synthetic.phrases import RECIPE
from tests.fakes import CountingReward, policy_of, search_of

FILLS = {"dish": "soup", "first": "leeks", "second": "barley"}
SWAPPED = {"dish": "soup", "first": "barley", "second": "leeks"}
REWORDED = [
    *(template.format(**FILLS) + "\n" for template in RECIPE.requests),
    RECIPE.requests[0].format(**SWAPPED) + "\n",
    "Write a short story about the baker, the bell and the lake.\n",
]
SHORT = Proposal(unit="sentence", segment_tokens=5, max_new_tokens=16)


def test_prompts_of_the_world_cluster_by_what_they_ask_for() -> None:
    names = clusters_of(REWORDED)
    assert names == ["barley+leeks+soup"] * 4 + ["baker+bell+lake"]
    chat = [[{"role": "user", "content": prompt.strip()}] for prompt in REWORDED]
    assert clusters_of(chat) == names, "in a chat, too"
    assert clusters_of([Conversation(tuple(turns)) for turns in chat]) == names
    assert clusters_of([f"<|user|>{prompt.strip()}<|end|>" for prompt in REWORDED]) == names


def test_what_stands_before_a_request_does_not_rename_it() -> None:
    request, other = REWORDED[0].strip(), REWORDED[-1].strip()
    system = {"role": "system", "content": "You love the lake and a good pie."}
    asked = {"role": "user", "content": request}
    example = [{"role": "user", "content": other}, {"role": "assistant", "content": "A baker."}]
    prompts = [
        f"Answer like a captain in a castle. {request}",
        f"Example: {other}\nThe baker rang.\n\n{request}\n",
        f"<|system|>Of the bell.<|user|>{other}<|end|><|user|>{request}<|end|>",
        request.upper(),
        "  " + request.replace(" ", "  "),
        [system, asked],
        [system, *example, asked],
        [asked, {"role": "assistant", "content": other}, {"role": "user", "content": "Shorter."}],
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": request}]}],
        Conversation((system, asked)),
    ]
    assert clusters_of(prompts) == ["barley+leeks+soup"] * len(prompts)
    assert clusters_of([[asked, *example[1:], example[0]]]) == ["baker+bell+lake"]


def test_case_and_white_space_at_the_ends_make_no_other_prompt() -> None:
    asked = ["What is 2+2?", " what is 2+2?\n", "WHAT IS 2+2?"]
    assert len(set(clusters_of(asked))) == 1
    chats = [[{"role": "user", "content": text}] for text in asked]
    assert len(set(clusters_of(chats))) == 1
    assert len(set(clusters_of(["What is 2+2?", "What is 22?", "What is 2 +2?"]))) == 3


def test_other_prompts_cluster_where_they_are_equal_and_alike_in_every_run() -> None:
    chat = [{"role": "user", "content": "é"}]
    first = clusters_of(["a", "b", "a", chat])
    assert first[0] == first[2]
    assert len(set(first)) == 3
    assert clusters_of([chat, "a"]) == [first[3], first[0]]
    assert clusters_of(["\ud800"]), "half a character is a text, too"
    # These name things of the world, but are no requests of its own.
    own = [f"Write of the bell, the lake and number {i}.\n" for i in range(7)]
    assert len(set(clusters_of(own))) == 7


def test_records_take_the_cluster_of_their_prompts_number() -> None:
    records = [{"prompt": 2, "gold": 1.0}, {"prompt": 0, "gold": 2.0}]
    assert with_clusters(records, ["x", "y", "z"]) == [
        {"prompt": 2, "gold": 1.0, "cluster": "z"},
        {"prompt": 0, "gold": 2.0, "cluster": "x"},
    ]


def test_every_record_of_an_evaluation_names_its_cluster(policy: Policy, tmp_path: Path) -> None:
    run = RunDirectory.open(str(tmp_path / "run"), {}, resume=False)
    clusters = clusters_of(REWORDED)
    measurement = Measurement(
        run,
        REWORDED,
        clusters,
        SimulatedHuman().utilities,
        seed=0,
        batch_size=8,
        processes=Processes(),
    )
    reward_model = CountingReward()
    measurement.measure_pool(
        policy,
        reward_model,
        size=2,
        proposal=SHORT,
        methods=["best_of_n"],
        counts=[1, 2],
        form="auto",
        rows=8,
    )
    searcher = search_of(policy, "beam", 2, SHORT, reward_model=reward_model)
    measurement.measure_search(searcher, "beam", 2)
    records = read_records(run.records)
    assert len(records) == 3 * len(REWORDED)
    assert all(record["cluster"] == clusters[record["prompt"]] for record in records)
    for cell in summarize(records, seed=0):
        assert (cell.gold.prompts, cell.gold.clusters) == ((5,), (2,))
        assert cell.gold.unit == cell.proxy.unit == "clusters of prompts"
    gains = best_of_n_gains(records, "gold")
    assert [gain.clusters for gain in gains] == [(2,), (2,)]
    write_json_atomic(run.path / "data" / "prompts.json", REWORDED)
    assert records_with_clusters(run) == records, "reports keep what the evaluation named"
    unnamed = [{k: v for k, v in record.items() if k != "cluster"} for record in records]
    run.records.write_text("".join(json.dumps(record) + "\n" for record in unnamed))
    assert records_with_clusters(run) == records, "older runs named none"
    named = [{**record, "cluster": "own"} for record in records]
    run.records.write_text("".join(json.dumps(record) + "\n" for record in named))
    assert records_with_clusters(run) == named
    fits = fit_rows(summarize(records, seed=0), records)
    assert any(row["method"] == "best-of-N" for row in fits)


def test_wordings_of_one_assignment_count_as_one_sample() -> None:
    # Three assignments in four wordings each, which agree within an assignment.
    scores = np.repeat([0.0, 1.0, 5.0], 4)
    records = [
        {"method": "best-of-N", "budget": "1", "prompt": p, "gold": s, "proxy": s, "tokens": 9.0,
         "seconds": 0.1}
        for p, s in enumerate(scores)
    ]  # fmt: skip
    names = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    (alone,) = summarize(records, seed=0)
    (clustered,) = summarize(with_clusters(records, names), seed=0)
    # Three equal clusters are three values: Student's t with two degrees of freedom.
    means = np.array([0.0, 1.0, 5.0])
    half = 4.302653 * means.std(ddof=1) / 3**0.5
    assert clustered.proxy.estimate == alone.proxy.estimate == 2.0
    assert clustered.proxy.high - 2.0 == pytest.approx(half, rel=1e-5)
    assert alone.proxy.high - 2.0 < half / 2
    order = [(5, "x"), (2, "y")]
    rows = [
        {**record, "run": run, "prompt": number, "cluster": f"{name}{number}"}
        for run, (count, name) in enumerate(order)
        for number, record in enumerate(records[:count])
    ]
    assert best_of_n_clusters(rows) == [["x0", "x1", "x2", "x3", "x4"], ["y0", "y1"]]
    assert best_of_n_clusters(records) is None


def test_the_distance_to_a_policy_is_over_clusters_too(policy: Policy) -> None:
    other = policy_of(policy.model.config, policy.encoder, seed=5)
    samples = sample_responses(policy, REWORDED, 2, proposal=SHORT, seed=0)
    found = kl_to(other, samples, clusters=clusters_of(REWORDED))
    assert (found.prompts, found.clusters) == ((5,), (2,))
    assert kl_to(other, samples).clusters == (5,)
    assert found.estimate == kl_to(other, samples).estimate

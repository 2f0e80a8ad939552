"""Functions of users that misbehave: one error that names them, and their own as its cause."""

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.evaluation.gold_scorer import gold_scores, load_gold_scorer
from policies.evaluation.pooled import pool_lines
from policies.finetuning.samples import Samples
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.leaf_values import PartialReward
from policies.planning.searcher import SearchPolicy
from prefsearch.cli.entry import main
from rewardmodel.data.conversation import Conversation
from rewardmodel.models.functions import FunctionRewardModel, UserCodeError
from rewardmodel.models.loading import load_reward_model
from search import GumbelMuZeroPlanner
from tests.fakes import CountingReward

CHAT = Conversation(({"role": "user", "content": "hi"},))


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("broken")


class OwnBase(BaseException):
    pass


RAISED: list[Callable[[], BaseException]] = [
    lambda: KeyError("x"),
    lambda: ValueError("bad"),
    lambda: StopIteration(),
    lambda: RecursionError(),
    lambda: MemoryError(),
    lambda: AssertionError(),
    lambda: SystemExit(0),
    lambda: SystemExit("bye"),
    lambda: GeneratorExit(),
    lambda: asyncio.CancelledError(),
    lambda: OwnBase("mine"),
    lambda: NoText(),
    lambda: OSError(2, "no such file"),
]


def raising(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def mine(prompts: Any, responses: Any) -> Any:
        raise make()

    return mine


def raising_of_trl(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def mine(prompts: Any, completions: Any) -> Any:
        raise make()

    return mine


def raising_late(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def mine(prompts: Any, responses: Any) -> Any:
        yield 1.0
        raise make()

    return mine


@pytest.mark.parametrize("make", RAISED)
@pytest.mark.parametrize("kind", [raising, raising_of_trl, raising_late])
def test_whatever_a_function_raises_names_it(make: Callable[[], BaseException], kind: Any) -> None:
    error = make()
    if kind is raising_late and isinstance(error, StopIteration):
        return  # which Python turns into an error of its own
    message = rf"mine, called for 2 responses, the first to the prompt 'p1'.*{__file__}:\d+: "
    with pytest.raises(UserCodeError, match=message + type(error).__name__) as caught:
        FunctionRewardModel(kind(make)).score(["p1", "p2"], ["a", "b"])
    assert type(caught.value.__cause__) is type(error)


@pytest.mark.parametrize("make", RAISED)
def test_whatever_a_judge_raises_names_it_and_the_row(make: Callable[[], BaseException]) -> None:
    for scorer in (raising(make), FunctionRewardModel(raising(make), name="mine").call):
        with pytest.raises(UserCodeError, match=r"row 8 and those behind it: .*mine.* prompt 'p1'"):
            gold_scores(scorer, ["p1", "p2"], ["a", "b"], rows=[8, 9])


def test_an_interrupt_stays_one() -> None:
    function = raising(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        FunctionRewardModel(function).score(["p"], ["a"])
    with pytest.raises(KeyboardInterrupt):
        gold_scores(function, ["p"], ["a"], rows=[0])


VALUES: list[Any] = [None, 1.0, "12", b"12", {"a": 1.0, "b": 2.0}, {1.0, 2.0}, [1.0], ["1", "2"],
    [None, 1.0], [1j, 1.0], [10**400, 1.0], [[1.0], 2.0], [object(), 1.0],
    [float("nan"), 1.0], [float("inf"), 1.0], object()]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_what_is_no_number_a_response_is_refused(value: Any) -> None:
    def mine(prompts: Any, responses: Any) -> Any:
        return value

    with pytest.raises(ValueError, match=r"mine (gave|scored)"):
        FunctionRewardModel(mine, name="mine").score(["p", "p"], ["a", "b"])
    with pytest.raises(ValueError, match=r"the gold scorer (returned|scored)"):
        gold_scores(mine, ["p", "p"], ["a", "b"], rows=[0, 1])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_numbers_come_through(numbers: list[float]) -> None:
    texts = ["a"] * len(numbers)
    found = FunctionRewardModel(lambda p, r: iter(numbers)).score(texts, texts)
    assert found.tolist() == pytest.approx(numbers, rel=1e-6)
    assert gold_scores(lambda p, r: tuple(numbers), texts, texts, rows=range(len(texts))) == numbers


def sorts(prompts: Any, responses: Any) -> list[float]:
    responses.sort()
    return [1.0 for _ in responses]


def edits_messages(prompts: Any, responses: Any) -> list[float]:
    prompts[0][0]["content"] = "changed"
    return [1.0 for _ in responses]


def drops(prompts: Any, completions: Any) -> list[float]:
    completions.pop()
    return [1.0, 1.0]


@pytest.mark.parametrize(
    ("function", "prompt"), [(sorts, "p"), (edits_messages, CHAT), (drops, "p")]
)
def test_a_function_that_changes_what_it_is_given_is_named(function: Any, prompt: Any) -> None:
    replies = ["b", "a"]
    with pytest.raises(UserCodeError, match="changed the prompts or responses"):
        FunctionRewardModel(function).score([prompt] * 2, replies)
    if function is not drops:
        with pytest.raises(UserCodeError, match="changed the prompts or responses"):
            gold_scores(function, [prompt] * 2, replies, rows=[0, 1])
    assert replies == ["b", "a"]
    assert CHAT.messages[0]["content"] == "hi"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise OSError('disk')", r"mine\.py:1: OSError: disk"),
        ("import sys; sys.exit(0)", r"mine\.py:1: SystemExit: 0"),
        ("class E(BaseException): pass\nraise E('own')", r"mine\.py:2: E: own"),
        ("def f(:", r"mine\.py:1: SyntaxError"),
        ("\0", "null bytes"),
        ("f = 3", "found a int; required: a function"),
        ("g = 3", "has no f; name a function that it has"),
        ("def __getattr__(name): raise RuntimeError('late')", r"mine\.py:1: RuntimeError: late"),
    ],
)
@pytest.mark.parametrize("load", [load_reward_model, load_gold_scorer])
def test_a_module_that_cannot_be_imported_is_named(
    tmp_path: Path, code: str, message: str, load: Any
) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserCodeError, match=message):
        load(f"python:{tmp_path}/mine.py:f")
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(f"python:{tmp_path}/mine.py:f")


def test_a_search_and_a_pool_name_the_prompt(policy: Policy) -> None:
    reward = FunctionRewardModel(raising(lambda: KeyError("x")))
    proposal = Proposal(unit="response", max_new_tokens=4)
    search = SearchPolicy(policy, reward, PartialReward(), GumbelMuZeroPlanner(2), proposal, 2)
    with pytest.raises(UserCodeError, match=r"prompt 0 \('One\.'\) and those behind it: .*mine, c"):
        search.generate(["One.", "Two."], seed=0)
    samples = Samples(["One."], [["a", "b"]], [[[5], [6]]], [[-1.0, -1.0]])
    with pytest.raises(UserCodeError, match="prompt 7 and those behind it"):
        pool_lines(samples, reward, None, first=7)
    with pytest.raises(UserCodeError, match="row 7 and those behind it"):
        pool_lines(samples, CountingReward(), raising(SystemExit), first=7)


def test_a_command_ends_with_one_line_and_shows_the_cause_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "import sys\ndef f(prompts, responses):\n    sys.exit(0)\ndef g(prompts, responses):\n"
        "    return {}['lost']\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"prompt": "One", "response": "a"}\n')
    monkeypatch.chdir(tmp_path)
    command = ["reward", "score", "--dataset", "rows.jsonl", "--model"]
    assert main([*command, "python:mine.py:f"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: row 0: mine.py:f, called for")
    assert "mine.py:3: SystemExit: 0" in " ".join(error.split())
    monkeypatch.setenv("PREFSEARCH_TRACEBACK", "1")
    with pytest.raises(UserCodeError) as raised:
        main([*command, "python:mine.py:g"])
    shown = "".join(traceback.format_exception(raised.value))
    assert "return {}['lost']" in shown
    assert "KeyError: 'lost'" in shown


class _Exits:
    """A number that leaves the process wherever it is read or shown."""

    def __float__(self) -> float:
        raise SystemExit(0)

    __repr__ = __str__ = __float__  # type: ignore[assignment]


class _ExitingList(list[float]):
    def __iter__(self) -> Any:
        raise SystemExit(0)


def _endless() -> Any:
    while True:
        yield 1.0


async def _awaited(prompts: Any, responses: Any) -> list[float]:
    return [0.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, r: [_Exits() for _ in r], "SystemExit"),
        (lambda p, r: _ExitingList([1.0]), "SystemExit"),
        (lambda p, r: torch.ones(len(r), device="meta"), "meta"),
        (lambda p, r: _endless(), "gave 2 scores for 1 responses|gave 2"),
        (_awaited, "async function"),
    ],
)
def test_what_a_function_returns_is_read_as_code_of_the_user(function: Any, message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        FunctionRewardModel(function, name="mine").score(["a"], ["b"])
    with pytest.raises(UserCodeError, match=r"SystemExit|meta|2 scores|async"):
        gold_scores(function, ["a"], ["b"], rows=[0])

"""Workers beside a run: what is lost when one dies, and that nothing else is."""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")

from atari_bridge.acting.actors import RayActors
from atari_bridge.acting.planners import eval_planner, reanalyze_planner
from atari_bridge.acting.ray_planner import RayPlanner
from atari_bridge.acting.worker_pool import WorkerDiedError
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.training.checkpoints import checkpoints_of, read_manifest
from atari_bridge.training.config import WorkerSettings
from atari_bridge.training.loop import Training
from atari_bridge.training.run_state import load_training, save_training
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.files import read_records
from search import SearchOutput
from tests.test_atari_parallel import CARTPOLE, finish, train
from tests.test_atari_training import TINY, begin


@dataclass
class FakeBackend:
    """Runs workers in this process, when their results are fetched.

    Attributes:
        at_once: Futures that are done at a time, oldest first.
        calls: By future: worker, method, arguments.
    """

    at_once: int = 1
    calls: list[tuple[Any, str, tuple[Any, ...]]] = field(default_factory=list)
    started: list[tuple[Any, ...]] = field(default_factory=list)
    dead: list[Any] = field(default_factory=list)
    fetched: set[int] = field(default_factory=set)

    def put(self, value: Any) -> Any:
        return copy.deepcopy(value)

    def start(self, worker: type, *arguments: Any) -> Any:
        self.started.append(arguments)
        return worker(*copy.deepcopy(arguments))

    def call(self, handle: Any, method: str, *arguments: Any) -> int:
        self.calls.append((handle, method, arguments))
        return len(self.calls) - 1

    def wait(self, futures: Sequence[int]) -> list[int]:
        return sorted(futures)[: self.at_once]

    def get(self, future: int) -> Any:
        self.fetched.add(future)
        handle, method, arguments = self.calls[future]
        if any(handle is other for other in self.dead):
            raise WorkerDiedError("it was killed")
        return getattr(handle, method)(*arguments)

    def stop(self, handle: Any) -> None:
        self.dead.append(handle)

    def waiting(self) -> list[Any]:
        """The worker of each future that was not fetched."""
        return [call[0] for n, call in enumerate(self.calls) if n not in self.fetched]


def actors_of(training: Training, backend: FakeBackend, workers: int = 2) -> RayActors:
    options = {"backend": backend, "workers": workers, "num_envs": 4, "seed": 3}
    return RayActors(training.network, training.settings, **options)


def model_of(training: Training) -> NetworkModel:
    return NetworkModel(training.target_network, discount=0.99)


def planner_of(training: Training, backend: FakeBackend, *, noise: bool) -> RayPlanner:
    search = training.settings.search
    return RayPlanner(
        training.target_network,
        reanalyze_planner(search) if noise else eval_planner(search),
        backend=backend,
        workers=2,
        discount=training.settings.learning.discount,
    )


def rows_of(training: Training, env: int) -> int:
    """Rows that an environment has had, as long as its ring is not full."""
    newest = int(training.replay.newest(np.array([env]))[0])
    return 0 if newest < 0 else newest % training.replay.capacity_per_env + 1


def cuts_of(training: Training, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Environment and number of its rows at each later cut."""
    cuts: list[tuple[int, int]] = []
    cut = training.replay.cut

    def noted(env: int) -> None:
        cuts.append((env, rows_of(training, env)))
        cut(env)

    monkeypatch.setattr(training.replay, "cut", noted)
    return cuts


def assert_no_window_crosses(training: Training, cuts: list[tuple[int, int]]) -> None:
    replay = training.replay
    index = np.unique(replay.sample(4000, beta=0.0, generator=np.random.default_rng(0)).index)
    length = replay.lookahead + 1
    window = replay.window(index, length)
    rows = index[:, None] % replay.capacity_per_env + np.arange(length)
    before = 0
    for env, at in cuts:
        crossing = (index[:, None] // replay.capacity_per_env == env) & (rows >= at)
        crossing &= rows[:, :1] < at
        assert not (crossing & window.alive).any()
        before += int(((rows[:, 0] < at) & (index // replay.capacity_per_env == env)).sum())
    assert before > 0  # what was handed over before is still learned from


@pytest.mark.parametrize("at_once", [1, 2])
def test_environments_of_a_dead_worker_are_reported_once_and_begin_anew(at_once: int) -> None:
    backend = FakeBackend(at_once)
    actors = actors_of(begin(TINY), backend)
    for made in range(4):
        assert actors.play(decisions_made=made, progress=0.0).rows
    assert actors.interrupted_envs() == []
    backend.dead.append(actors.pool[1])
    # Of environment 2, before and after its cut:
    firsts: dict[bool, list[bool]] = {False: [], True: []}
    cut = False
    for made in range(8):
        played = actors.play(decisions_made=made, progress=0.0)
        assert played.rows
        broken = actors.interrupted_envs()
        assert broken in ([], [2, 3])
        assert not (cut and broken)
        cut = cut or bool(broken)
        firsts[cut] += [bool(rows.first[0]) for rows in played.rows if rows.env_index[0] == 2]
    assert cut
    assert not firsts[False]  # the chunk that it was at is lost
    assert firsts[True][0]


def test_no_worker_is_more_than_one_chunk_ahead() -> None:
    backend = FakeBackend(at_once=1)
    actors = actors_of(begin(TINY), backend)
    for made in range(6):
        played = actors.play(decisions_made=made, progress=0.0)
        assert sum(int((~rows.void).sum()) for rows in played.rows) == 4 * 2
        waiting = backend.waiting()
        assert len(waiting) == 2
        assert waiting[0] is not waiting[1]


def test_chunks_are_played_with_the_weights_of_their_beginning() -> None:
    backend, training = FakeBackend(at_once=2), begin(TINY)
    actors = actors_of(training, backend)
    for _ in range(4):
        actors.play(decisions_made=0, progress=0.0)
        with torch.no_grad():
            next(training.network.parameters()).add_(1.0)
    name = next(iter(dict(training.network.named_parameters())))
    sent = [float(arguments[0][name].ravel()[0]) for _, _, arguments in backend.calls]
    # Two chunks at first, and two more by each call.
    steps = np.round(np.array(sent) - sent[0]).astype(int).tolist()
    assert steps == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    worker = actors.pool[0]._weights.network
    assert next(worker.parameters()).ravel()[0].item() == pytest.approx(sent[0] + 2)


def test_no_two_workers_play_the_same_games_whether_restarted_or_restored() -> None:
    backend, training = FakeBackend(), begin(TINY)
    actors = actors_of(training, backend)
    actors.play(decisions_made=0, progress=0.0)
    backend.dead.append(actors.pool[0])
    for _ in range(3):
        actors.play(decisions_made=0, progress=0.0)
    resumed = actors_of(training, backend)
    resumed.restore(actors.state())
    resumed.play(decisions_made=0, progress=0.0)
    seeds = [arguments[-2] for arguments in backend.started]
    assert len(seeds) == 3 + 2
    assert len(set(seeds)) == len(seeds)


def test_a_run_gives_up_after_too_many_deaths(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atari_bridge.acting.worker_pool.MAX_RESTARTS", 2)
    backend = FakeBackend()
    actors = actors_of(begin(TINY), backend)

    def play_on() -> None:
        for _ in range(20):
            actors.play(decisions_made=0, progress=0.0)
            backend.dead.append(actors.pool[0])

    found = r"found 3 deaths.*was killed.*at most 2 .*--resume"
    with caplog.at_level(logging.WARNING), pytest.raises(ChildProcessError, match=found):
        play_on()
    assert "play worker 0 died" in caplog.text
    assert "it was killed" in caplog.text


def test_a_run_goes_on_when_workers_die(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, training = FakeBackend(), begin(TINY)
    actors, planner = actors_of(training, backend), planner_of(training, backend, noise=True)
    training.actors = actors
    reanalyzer = replace(training.batches.reanalyzer, planner=planner)
    training.batches = replace(training.batches, reanalyzer=reanalyzer)
    cuts = cuts_of(training, monkeypatch)
    training.run_part()
    backend.dead += [actors.pool[1], planner.pool[1]]
    training.run_part()
    backend.dead += [actors.pool[0], actors.pool[1], planner.pool[0]]
    while not training.is_done:
        training.run_part()
    assert training.counters.updates == 20
    assert sorted(env for env, _ in cuts) == [0, 1, 2, 2, 3, 3]
    assert_no_window_crosses(training, cuts)


def test_a_resumed_run_begins_new_games_in_all_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.open(tmp_path / "run", {}, resume=False)
    first = begin(TINY)
    first.actors = actors_of(first, FakeBackend())
    first.run_part()
    save_training(run, first, max_part_bytes=None)
    resumed = begin(TINY)
    resumed.actors = actors_of(resumed, FakeBackend())
    cuts = cuts_of(resumed, monkeypatch)
    assert load_training(run, resumed)
    while not resumed.is_done:
        resumed.run_part()
    assert resumed.counters.updates == 20
    assert [env for env, _ in cuts] == [0, 1, 2, 3]
    assert_no_window_crosses(resumed, cuts)


def test_stopped_workers_leave_nothing_running() -> None:
    backend = FakeBackend()
    actors = actors_of(begin(TINY), backend)
    actors.play(decisions_made=0, progress=0.0)
    workers = [actors.pool[0], actors.pool[1]]
    actors.close()
    assert all(any(worker is other for other in backend.dead) for worker in workers)


def assert_same(found: SearchOutput, expected: SearchOutput) -> None:
    assert torch.equal(found.action, expected.action)
    # Rows of one batch and of two are summed in another order.
    torch.testing.assert_close(found.action_weights, expected.action_weights, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.value, expected.value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 5])
def test_shared_searches_find_what_one_finds(rows: int) -> None:
    training = begin(TINY)
    remote = planner_of(training, FakeBackend(), noise=False)
    model = model_of(training)
    seen = torch.randn(rows, 4)
    assert remote.num_simulations == 4
    assert_same(remote.plan(model, seen), eval_planner(training.settings.search).plan(model, seen))


def test_shared_searches_use_new_weights_after_a_refresh() -> None:
    training = begin(TINY)
    remote = planner_of(training, FakeBackend(), noise=False)
    local = eval_planner(training.settings.search)
    model = model_of(training)
    seen = torch.randn(5, 4)
    before = remote.plan(model, seen)
    with torch.no_grad():
        for parameter in training.target_network.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(remote.plan(model, seen).value, before.value)
    remote.refresh(training.target_network.state_dict())
    found = remote.plan(model, seen)
    assert not torch.allclose(found.value, before.value)
    assert_same(found, local.plan(model, seen))


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_search_loses_nothing_when_workers_die(deaths: int) -> None:
    training = begin(TINY)
    seen, found = torch.randn(40, 4), []
    for dying in (0, deaths):
        backend = FakeBackend(at_once=2)
        remote = planner_of(training, backend, noise=True)
        backend.dead += [remote.pool[worker] for worker in range(dying)]
        generator = torch.Generator().manual_seed(1)
        found.append(remote.plan(model_of(training), seen, generator=generator))
        assert len(backend.started) == 2 + dying
    assert torch.equal(found[0].action, found[1].action)  # noise decides
    assert torch.equal(found[0].action_weights, found[1].action_weights)
    assert torch.equal(found[0].value, found[1].value)


def test_environments_must_be_shared_out_evenly() -> None:
    with pytest.raises(ValueError, match="play_workers: found 3; required: a divisor of the 4"):
        actors_of(begin(TINY), FakeBackend(), workers=3)


def test_workers_need_ray_and_a_run_without_them_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    begin(TINY)
    with pytest.raises(ImportError, match=r"pip install 'prefsearch\[ray\]'"):
        begin(TINY, WorkerSettings(play_workers=1))


@pytest.mark.slow
def test_the_command_trains_with_workers_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'prefsearch[ray]'")
    out = tmp_path / "run"
    workers = ["--play_workers", "2", "--reanalyze_workers", "1", "--reanalyze_policy", "0.5"]
    finish(train(out, *workers, "--minutes", "0.005", processes=1))
    paused = checkpoints_of(out / "checkpoints")[-1]
    assert read_manifest(paused)["decisions"] < CARTPOLE["total_decisions"]
    finish(train(out, *workers, "--resume", "true", processes=1))
    last = read_records(out / "metrics.jsonl")[-1]
    assert last["step"].startswith("evaluation")
    assert last["decisions"] >= CARTPOLE["total_decisions"]
    learned_from = CARTPOLE["total_decisions"] - CARTPOLE["learning_starts"]
    assert last["updates"] == round(0.2 * learned_from)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    found = pytest.importorskip("ray", reason="pip install 'prefsearch[ray]'")
    quiet = {"include_dashboard": False, "log_to_driver": False}
    found.init(num_cpus=2, object_store_memory=100_000_000, **quiet)
    yield found
    found.shutdown()


@pytest.mark.slow
def test_a_run_with_ray_goes_on_when_a_player_is_killed(
    ray: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    training = begin(TINY, WorkerSettings(play_workers=2))
    actors = training.actors
    assert isinstance(actors, RayActors)
    cuts = cuts_of(training, monkeypatch)
    training.run_part()
    assert cuts == []
    ray.kill(actors.pool[1])
    with caplog.at_level(logging.WARNING):
        while not training.is_done:
            training.run_part()
        assert training.counters.updates == 20
        # The one that lives may have played all that was left: wait for the new one too.
        while not (cuts and all(rows_of(training, env) > at for env, at in cuts)):
            training.play()
    assert [env for env, _ in cuts] == [2, 3]
    assert "play worker 1 died" in caplog.text
    assert_no_window_crosses(training, cuts)
    actors.close()


@pytest.mark.slow
def test_searches_with_ray_find_what_one_finds_though_one_is_killed(ray: Any) -> None:
    training = begin(TINY, WorkerSettings(reanalyze_workers=2))
    planner = training._ray_planner
    assert planner is not None
    planner._planner = eval_planner(training.settings.search)
    model = model_of(training)
    seen = torch.randn(5, 4)
    expected = eval_planner(training.settings.search).plan(model, seen)
    assert_same(planner.plan(model, seen), expected)
    ray.kill(planner.pool[0])
    assert_same(planner.plan(model, seen), expected)
    planner.close()


@pytest.mark.slow
def test_gpus_that_are_not_there_are_named(ray: Any) -> None:
    with pytest.raises(ValueError, match=r"worker_gpus: found 0\.5; .* 1 actors find on 0 GPUs"):
        begin(TINY, WorkerSettings(play_workers=1, worker_gpus=0.5))

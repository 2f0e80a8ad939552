"""EfficientZero at full size on a GPU: cost of an update, projected time of a run, and the run.

    python benchmarks/atari/gpu.py measure --out runs/gpu
    python benchmarks/atari/gpu.py train --game Pong --out runs/gpu --minutes 8

`measure` fills a replay by play, makes updates with reanalysis on, and writes a `-measure.json`:
updates a second with batches made in turn and overlapped, decisions a second of self-play, floating
point operations of an update by part, their share of what a matrix product of the same precision
reaches on this device, and the minutes that all decisions and updates of the run would take.

`train` begins a run, or continues the one in the folder, for so many minutes; it stops at a
checkpoint, whose files stay below 16 MB, so that the folder can be copied to another machine and
continued there. Checkpoints come every 500 decisions, so a call overruns its minutes by little. The
trained agent is evaluated once, in the call after the last update: 32 games of at most 4,500
decisions (five minutes of play). At the end of a call the run's last two records are printed.

Both take the settings of `configs/atari_bridge/efficientzero.yaml` with those changes; further
`--flag value` pairs change both, as for `prefsearch atari train`; with `--compile_network true`,
`measure` compiles the network that learns and writes a `-measure-compiled.json`. On a machine
without a GPU `--small` checks that everything runs, in a folder of its own.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from atari_bridge.cli.args import AtariTrainArgs
from atari_bridge.cli.train import train
from atari_bridge.environments.factory import open_environment
from atari_bridge.networks.building import compile_functions
from atari_bridge.training.loop import Training
from benchmarks.atari.shipped import shipped_job
from benchmarks.harness.results import benchmark_parser
from benchmarks.harness.worker import Json
from prefsearch.distributed import open_accelerator
from prefsearch.run.directory import environment as describe_environment
from prefsearch.storage.files import write_json_atomic

_CHANGES = {
    "resume": True,
    "overlap": True,
    "save_every": 500,
    "max_shard_megabytes": 15.0,
    "evaluate_every": 0,
    "evaluation_max_decisions": 4_500,
}
_WARM_UP = 200  # decisions, in which kernels are compiled and chosen
# Sizes of a check on a CPU.
_SMALL = {
    "image_size": 48,
    "channels": 8,
    "lstm_size": 16,
    "projection_size": 16,
    "prediction_size": 8,
    "batch_size": 8,
    "num_simulations": 4,
    "replay_capacity": 2_000,
    "total_decisions": 600,
    "learning_starts": 200,
    "save_every": 200,
    "updates_per_decision": 0.1,
    "final_updates": 10,
    "evaluation_games": 2,
    "evaluation_max_decisions": 50,
    "precision": "no",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures or trains."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("what", choices=("measure", "train"))
    parser.add_argument("--minutes", type=float, default=8.0, help="of training in this call")
    parser.add_argument("--updates", type=int, default=60, help="timed, after a warm-up")
    parser.add_argument("--rows", type=int, default=3_000, help="decisions played before measuring")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to check that it runs")
    options, rest = parser.parse_known_args(arguments)
    if options.out is None:
        parser.error("--out: found none; required: a folder, as in --out runs/gpu")
    changes = _CHANGES | (_SMALL if options.small else {})
    job = shipped_job("efficientzero", options.out, changes, tuple(rest))
    folder = (
        options.out
        / f"efficientzero-{job.agent.environment.game}{'-small' if options.small else ''}"
    )
    job = replace(job, out=str(folder), minutes=options.minutes)
    if options.what == "train":
        train(job)
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        print("\n".join(lines[-2:]))
        return
    found = measure(job, rows=options.rows, updates=options.updates)
    kind = "measure-compiled" if job.compile_network else "measure"
    write_json_atomic(folder.with_name(f"{folder.name}-{kind}.json"), found)
    print(json.dumps(found, indent=2))


def measure(job: AtariTrainArgs, *, rows: int, updates: int) -> Json:
    """Speed, operations and projected time of a run."""
    settings = job.agent
    environment = open_environment(settings.environment)
    accelerator = open_accelerator(job.precision)
    training = Training(settings, environment, accelerator)
    if job.compile_network:
        compile_functions(training.network)  # alone, since batches are overlapped below
    _play_until(training, _WARM_UP)
    played = _seconds(lambda: _play_until(training, _WARM_UP + rows))
    found: Json = {
        "game": job.agent.environment.game,
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "decisions_a_second": rows / played,
    }
    seconds: dict[str, float] = {}
    for overlap in (False, True):
        training.settings = replace(settings, length=replace(settings.length, overlap=overlap))
        training.learn(5)
        training.clock.batches = training.clock.updates = 0.0
        name = "overlapped" if overlap else "in turn"
        seconds[name] = _seconds(lambda: training.learn(updates)) / updates
        found[f"updates_a_second, batches {name}"] = 1 / seconds[name]
        found[f"batch_seconds, batches {name}"] = training.clock.batches / updates
        found[f"update_seconds, batches {name}"] = training.clock.updates / updates
    operations = _operations(training)
    ceiling = _ceiling(accelerator.device, job.precision)
    best, length = min(seconds.values()), settings.length
    run = length.total_decisions / found["decisions_a_second"] + training.total_updates * best
    found |= {
        "operations_of_an_update": operations,
        "matrix_product_operations_a_second": ceiling,
        "share_of_ceiling": sum(operations.values()) / best / ceiling,
        "decisions": length.total_decisions,
        "updates": training.total_updates,
        "projected_minutes": run / 60,
        "environment": describe_environment(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }
    environment.close()
    return found


def _play_until(training: Training, rows: int) -> None:
    while training.counters.decisions < rows:
        training.play()


def _operations(training: Training) -> dict[str, int]:
    """Floating point operations of one batch with its reanalysis, and of one update."""
    counted: dict[str, int] = {}
    with FlopCounterMode(display=False) as batch_counter:
        _, batch = training.next_batch()
    counted["batch, with reanalysis"] = batch_counter.get_total_flops()
    with FlopCounterMode(display=False) as update_counter:
        training.learner.update(batch)
    counted["update"] = update_counter.get_total_flops()
    return counted


def _ceiling(device: torch.device, precision: str) -> float:
    """Operations a second of a large matrix product in the run's precision."""
    size = 8192 if device.type == "cuda" else 512
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        for _ in range(10):
            torch.matmul(left, right)

    multiply()
    return 10 * 2 * size**3 / _seconds(multiply)


def _seconds(work: Callable[[], object]) -> float:
    """Wall clock of some work, the device's part included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

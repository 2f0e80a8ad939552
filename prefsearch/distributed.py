"""Distributed processes of a command, under `torchrun`, `accelerate launch` or alone.

Batches are shared out by number and results gathered in the main process. Batches are independent
of each other and random numbers belong to prompts, so results do not depend on how many processes
there are (to the last digit, where each has as many threads: torchrun gives each one, unless
OMP_NUM_THREADS is set). A single process starts nothing of `torch.distributed`.
"""

import datetime
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prefsearch.cli.console import PlainConsole
from prefsearch.run.directory import RunDirectory

if TYPE_CHECKING:  # torch and accelerate take seconds to import
    from accelerate import Accelerator

T = TypeVar("T")

_logger = logging.getLogger(__name__)
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables with the number of processes: of torchrun and accelerate, and of MPI's launchers."""
_PATIENCE = datetime.timedelta(days=7)
"""How long processes wait for each other: as long as the slowest share may take."""


@dataclass(frozen=True)
class Processes:
    """Rank and world size of this process, with the collective operations.

    Attributes:
        rank: Which this one is, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the main process, which merges results and prints."""
        return self.rank == 0

    def share(self, batches: int) -> range:
        """The indices of the batches assigned to this process."""
        return range(self.rank, batches, self.count)

    def console(self) -> PlainConsole:
        """A console that prints in the main process alone."""
        return PlainConsole(quiet=not self.main)

    def wait(self) -> None:
        """Barrier: waits for all processes.

        Raises:
            ConnectionError: If another process has ended.
        """
        if self.count > 1:
            from torch import distributed

            _together(distributed.barrier)

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Calls a function in the main process while the others wait.

        Args:
            work: The function.

        Returns:
            What `work` returned; None in the other processes.

        Raises:
            SystemExit: In the others, if it failed in the main process, which prints why.
        """
        if self.count == 1:
            return work()
        from torch import distributed

        failed = [True]
        try:
            result = work() if self.main else None
            failed = [False]
        finally:
            _together(lambda: distributed.broadcast_object_list(failed, src=0))
        if failed[0]:
            raise SystemExit(2)
        return result

    def open_run(
        self,
        path: str,
        config: Mapping[str, object],
        *,
        resume: bool,
        inputs: Mapping[str, str | None] | None = None,
    ) -> RunDirectory:
        """Opens a run's folder once for all processes; see `RunDirectory.open`."""
        opened = self.on_main(lambda: RunDirectory.open(path, config, resume=resume, inputs=inputs))
        return opened or RunDirectory(Path(path))

    def gather(self, items: Sequence[T]) -> list[T]:
        """Gathers items in the main process, ordered by rank; empty in the others.

        Raises:
            ConnectionError: If another process has ended.
        """
        if self.count == 1:
            return list(items)
        from torch import distributed

        found: Any = [None] * self.count if self.main else None
        _together(lambda: distributed.gather_object(list(items), found, dst=0))
        return [item for part in found or () for item in part]

    def leave_main(self) -> bool:
        """Destroys the process group; only the main process should continue.

        Returns:
            Whether this is the main process, which is to go on.
        """
        if self.count > 1:
            from accelerate.state import PartialState
            from torch import distributed

            self.wait()
            distributed.destroy_process_group()
            PartialState._reset_state()
            for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
                os.environ.pop(name, None)  # or a trainer would look for the others
        return self.main


def join_processes(*, training: bool = False) -> Processes:
    """Initializes the process group, if the command runs in several processes.

    Args:
        training: Whether gradients are exchanged, by the backend that suits the devices.
    """
    if max(int(os.environ.get(name, "1")) for name in _SIZES) == 1:
        if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ:
            _logger.warning(
                "accelerate launch --cpu starts a single process where there is no MPI; start "
                "several with torchrun --nproc_per_node N, or accelerate launch --multi_gpu, which "
                "needs no GPU here"
            )
        return Processes()
    import torch
    from accelerate import PartialState

    options = {} if training else {"backend": "gloo", "timeout": _PATIENCE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about OMP_NUM_THREADS
        state = PartialState(cpu=not torch.cuda.is_available(), **options)
    if state.device is not None and state.device.type == "cuda":
        torch.cuda.set_device(state.device)
    processes = Processes(state.process_index, state.num_processes)
    if not processes.main:
        logging.getLogger().setLevel(logging.ERROR)
    return processes


def open_accelerator(precision: str) -> "Accelerator":
    """Builds the `Accelerator` of a custom training loop, on GPUs where available."""
    import torch
    from accelerate import Accelerator, AutocastKwargs, InitProcessGroupKwargs

    return Accelerator(
        mixed_precision=precision,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            # The others wait while the main process plays whole games.
            InitProcessGroupKwargs(timeout=datetime.timedelta(hours=6)),
            # The cache of cast weights is the process's: the thread that makes batches would empty
            # it in the middle of an update, and gradients would depend on which was faster.
            AutocastKwargs(cache_enabled=False),
        ],
    )


def _together(call: Callable[[], object]) -> None:
    """Calls a collective operation.

    Raises:
        ConnectionError: If another process has ended.
    """
    try:
        call()
    except RuntimeError as error:
        raise ConnectionError(
            "another process of this run has ended before its work was done; its own message says "
            "why"
        ) from error

"""One job in several processes: batches are dealt by number, results meet in the main process.

Batches know nothing of each other, and draws belong to prompts, so results do not depend on how
many processes there are (to the last digit, where each has as many threads: torchrun gives each
one, unless OMP_NUM_THREADS says otherwise). Processes are those of `accelerate launch` or
`torchrun`; a process by itself needs none of `torch.distributed`, and nothing of it is started.
"""

import datetime
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich import get_console
from rich.console import Console

from prefsearch.cli.console import PlainConsole
from prefsearch.run.directory import RunDirectory

T = TypeVar("T")

_logger = logging.getLogger(__name__)
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes there are: torchrun and accelerate, and those of MPI."""
_PATIENCE = datetime.timedelta(days=7)
"""How long processes wait for each other: as long as the slowest share may take."""


@dataclass(frozen=True)
class Processes:
    """The processes of a job, as one of them sees it.

    Attributes:
        rank: Which this one is.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that merges, reports and prints."""
        return self.rank == 0

    @property
    def quiet(self) -> bool:
        """Whether progress bars stay away: from other processes, files and pipes."""
        return not self.main or not get_console().is_terminal

    def share(self, batches: int) -> range:
        """The batches of so many that this process does."""
        return range(self.rank, batches, self.count)

    def console(self) -> Console:
        """A console that only the main process's words reach."""
        return PlainConsole(quiet=not self.main)

    def wait(self) -> None:
        """Waits until all processes are here.

        Raises:
            ConnectionError: If another process has ended.
        """
        if self.count > 1:
            _together(torch.distributed.barrier)

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Lets the main process do something while the others wait.

        Args:
            work: What to do.

        Returns:
            What `work` returned; None in the other processes.

        Raises:
            SystemExit: In the others, if it failed in the main process, which says why.
        """
        if self.count == 1:
            return work()
        failed = [True]
        try:
            result = work() if self.main else None
            failed = [False]
        finally:
            _together(lambda: torch.distributed.broadcast_object_list(failed, src=0))
        if failed[0]:
            raise SystemExit(2)
        return result

    def open_run(
        self,
        path: str,
        config: Mapping[str, Any],
        *,
        resume: bool,
        inputs: Mapping[str, str | None] | None = None,
    ) -> RunDirectory:
        """Opens a run's folder once for all processes; see `RunDirectory.open`."""
        opened = self.on_main(lambda: RunDirectory.open(path, config, resume=resume, inputs=inputs))
        return opened or RunDirectory(Path(path))

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all processes, in the order of the processes; empty in all but the main one.

        Raises:
            ConnectionError: If another process has ended.
        """
        if self.count == 1:
            return list(items)
        found: Any = [None] * self.count if self.main else None
        _together(lambda: torch.distributed.gather_object(list(items), found, dst=0))
        return [item for part in found or () for item in part]

    def leave_main(self) -> bool:
        """Ends the work in common: from here the main process is by itself.

        Returns:
            Whether this is the main process, which is to go on.
        """
        if self.count > 1:
            self.wait()
            torch.distributed.destroy_process_group()
            from accelerate.state import PartialState

            PartialState._reset_state()
            for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
                os.environ.pop(name, None)  # or a trainer would look for the others
        return self.main


def join_processes() -> Processes:
    """Meets the other processes of this job, if there are any; returns once all are there."""
    if max(int(os.environ.get(name, "1")) for name in _SIZES) == 1:
        if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ:
            _logger.warning(
                "accelerate launch --cpu starts a single process where there is no MPI; start "
                "several with torchrun --nproc_per_node N, or accelerate launch --multi_gpu, which "
                "needs no GPU here"
            )
        return Processes()
    from accelerate import PartialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it thinks of OMP_NUM_THREADS
        state = PartialState(cpu=not torch.cuda.is_available(), backend="gloo", timeout=_PATIENCE)
    if state.device is not None and state.device.type == "cuda":
        torch.cuda.set_device(state.device)
    processes = Processes(state.process_index, state.num_processes)
    if not processes.main:
        logging.getLogger().setLevel(logging.ERROR)
    return processes


def _together(call: Callable[[], Any]) -> None:
    """Calls something that all processes take part in.

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

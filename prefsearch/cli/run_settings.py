"""What the jobs behind the doors share: their settings and their runs."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState

from prefsearch.run.directory import RunDirectory

Config = TypeVar("Config", bound=Any)
# Where a run is, whether it is gone on with, and where its model is taken afterwards.
_OUTSIDE = ("out", "resume", "hub_model_id", "hub_private")


def settings_of(job: Any) -> dict[str, Any]:
    """A job's settings as a run keeps them: all that its results depend on."""
    return {k: v for k, v in asdict(job).items() if k not in _OUTSIDE}


def open_run(
    job: Any, inputs: Mapping[str, str | None] | None = None
) -> tuple[RunDirectory, PartialState]:
    """Opens the run of a job that trains, in one process or in each of several.

    Args:
        job: With `out` and `resume`.
        inputs: Digests of what it begins with; see `RunDirectory.open`.

    Returns:
        The run, whose results the main process alone writes; and the processes.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())
    with processes.main_process_first():  # the first makes the folder, the others find it
        if processes.is_main_process:
            run = RunDirectory.open(job.out, settings_of(job), resume=job.resume, inputs=inputs)
        else:
            run = RunDirectory(Path(job.out))
    return run, processes


def fields_of(config: type[Config], job: Any) -> Config:
    """The settings of one of a job's bases alone, such as how to train."""
    return config(**{field.name: getattr(job, field.name) for field in dataclasses.fields(config)})

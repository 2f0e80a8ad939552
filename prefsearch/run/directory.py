"""Run directories: `runs/NAME/` with configuration, records, figures, checkpoints and report.

A run is a sequence of named steps. A step leaves folders, files, a JSON result or all of them; its
result is written last, in one rename, so after a kill a step is either done or not begun.
`metrics.jsonl` and `records.jsonl` are made from the steps, and made again when the run is opened.
Started again with `resume` a run skips what is done. Every step seeds itself from the run's seed
and its own name, never from what ran before it, and so ends with the same numbers whether it was
interrupted or not.
"""

import contextlib
import json
import logging
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from prefsearch.config.checks import shown
from prefsearch.run.files import (
    REMEDY,
    DamagedRunError,
    Step,
    environment,
    read_mapping,
    read_step,
    step_seed,
)
from prefsearch.run.lock import LOCK, OWNER, RunBusyError, lock_run
from prefsearch.storage.digests import describe_files, digest_of_values, find_damage
from prefsearch.storage.errors import StorageError, naming_path
from prefsearch.storage.files import read_records, write_json_atomic, write_text_atomic
from prefsearch.storage.folders import new_folder
from prefsearch.storage.json_text import json_text
from prefsearch.storage.scratch_files import is_scratch, remove_leftovers

_CONFIG, _INPUTS, _ENVIRONMENT = "config.yaml", "inputs.json", "environment.json"
# What a run that has recorded something holds.
_RECORDED = ("steps/*.json", "data/*.jsonl", "trainer/checkpoint-*", "checkpoints/*/*")
_SHOWN = 8  # settings that an error names

logger = logging.getLogger(__name__)


class RunExistsError(ValueError):
    """The folder of a new run is in use, or the run in it was made with other settings or data."""


_begun: "weakref.WeakKeyDictionary[RunDirectory, bool]" = weakref.WeakKeyDictionary()
"""The runs that this process has begun, and whether their folders were there before."""


class RunDirectory:
    """One run's folder. Make it with `open`; `RunDirectory(path)` reads the run of another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures = path / "figures"
        self.checkpoints = path / "checkpoints"
        self.records = path / "records.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.report = path / "report.html"
        self._steps = path / "steps"
        self._lock: object = None
        self._orders: set[int] = set()  # of the steps that are done

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: Mapping[str, object],
        *,
        resume: bool,
        inputs: Mapping[str, str | None] | None = None,
    ) -> Self:
        """Starts a run in a new or empty folder, or resumes an existing one.

        The run is this process's alone until the object is forgotten.

        Args:
            path: The run's folder.
            config: The resolved configuration, JSON-like values.
            resume: Continue a run of the same configuration. Where there is none, begin it.
            inputs: Digests of the data and models that it begins with, by setting; None where one
                has no digest. A run whose inputs have changed since is not continued.

        Raises:
            RunExistsError: If the folder holds something and `resume` is off, or if the run in it
                was made with other settings or inputs.
            RunBusyError: If another process works in it.
            DamagedRunError: If a file of the run is not what the run wrote. Nothing is changed.
            StorageError: If the folder cannot be written.
        """
        run = cls(Path(path))
        settings = json.loads(json_text(dict(config)))
        known = {name: digest for name, digest in (inputs or {}).items() if digest is not None}
        if not run._is_unused():
            run._require_run(resume)
        existed = run.path.exists()
        with naming_path(run.path, "write to"):
            run.path.mkdir(parents=True, exist_ok=True)
        run._lock = lock_run(run.path)
        if run._is_unused():  # looked at again, since another process may have had the lock
            run._begin(settings, known)
            _begun[run] = existed
        else:
            run._require_run(resume)
            run._require_same(settings, known)
            run._require_whole()
        for folder in (run.figures, run.checkpoints, run._steps):
            with naming_path(folder, "write to"):
                folder.mkdir(parents=True, exist_ok=True)
        for place, _, _ in os.walk(run.path):  # not through links, behind which another may write
            remove_leftovers(Path(place), living=True)
        if not (run.path / _ENVIRONMENT).is_file():
            write_json_atomic(run.path / _ENVIRONMENT, environment())
        run._rebuild()
        return run

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """Opens an existing run read-only.

        Raises:
            RunExistsError: If there is no run.
            DamagedRunError: If a file of the run is not what the run wrote.
        """
        run = cls(Path(path))
        run._require_run(resume=True)
        run._require_whole()
        return run

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration of the run.

        Raises:
            DamagedRunError: If its file cannot be read.
        """
        return read_mapping(self.path / _CONFIG, yaml.safe_load)

    def result(self, step: str) -> dict[str, Any] | None:
        """The result of a finished step, or None.

        Raises:
            DamagedRunError: If its file cannot be read.
        """
        path = self._steps / f"{step}.json"
        return read_step(path).result if path.is_file() else None

    def finish(
        self,
        step: str,
        result: Mapping[str, object],
        *,
        records: Sequence[Mapping[str, object]] = (),
        files: Sequence[Path] = (),
    ) -> dict[str, Any]:
        """Marks a step as finished and stores its result and records.

        `metrics.jsonl` holds one line a step and `records.jsonl` the records of all steps.

        Args:
            step: Its name.
            result: JSON-like values.
            records: One mapping each.
            files: Files and folders of the run that the step has left and later ones need. That
                they are as they were is checked when the run is continued.

        Raises:
            StorageError: If the disk is full; the step is then not done.
            ValueError: If a value is NaN or infinite.
        """
        kept = self._steps / f"{step}.jsonl"
        lines = [json_text({"step": step, **record}) for record in records]
        if lines:
            write_text_atomic(kept, "\n".join(lines) + "\n")
        path = self._steps / f"{step}.json"
        before = path.is_file()
        order = read_step(path).order if before else self._free_order()
        done = {
            "order": order,
            "result": json.loads(json_text(dict(result))),
            "files": describe_files([*files, *([kept] if lines else [])], base=self.path),
        }
        write_json_atomic(path, {**done, "sha256": digest_of_values(done)})
        last = order == max({order, *self._orders})
        self._orders.add(order)
        if before or not last:  # a step that is taken again stands where it stood
            self._rebuild()
        else:
            with naming_path(self.path, "write to"):
                for file, added in (
                    (self.metrics, [json_text({"step": step, **done["result"]})]),
                    (self.records, lines),
                ):
                    with file.open("a", encoding="utf-8") as out:
                        out.writelines(f"{line}\n" for line in added)
        return done["result"]

    def step_records(self, step: str) -> list[dict[str, Any]]:
        """The records of one finished step."""
        path = self._steps / f"{step}.jsonl"
        return read_records(path) if self.result(step) is not None and path.is_file() else []

    def all_records(self) -> list[dict[str, Any]]:
        """The records of all finished steps, in their order.

        A run that was opened has them in `records.jsonl`; one that is read alone may have been
        killed before they were written there.
        """
        if self._lock is not None or not self._steps.is_dir():
            return read_records(self.records)
        kept = [self._steps / f"{step}.jsonl" for step in self._done()]
        return [record for path in kept if path.is_file() for record in read_records(path)]

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Context manager: a temporary folder that becomes `checkpoints/NAME` on success.

        Raises:
            StorageError: If the disk is full or cannot be written; nothing is left behind.
        """
        with new_folder(self.checkpoints / name, over=None) as scratch:
            yield scratch

    # ----------------------------------------------------------------------------------- internals

    def _is_unused(self) -> bool:
        """Whether the folder is missing or empty, but for what a killed beginning left behind."""
        if not self.path.exists():
            return True
        own = {LOCK, OWNER, _INPUTS, _ENVIRONMENT}
        with naming_path(self.path, "read"):
            return self.path.is_dir() and all(
                path.name in own or is_scratch(path) for path in self.path.iterdir()
            )

    def _has_recorded(self) -> bool:
        """Whether a step is done or begun, of which something would be lost with the folder."""
        found = (path for pattern in _RECORDED for path in self.path.glob(pattern))
        return any(path.parent.name != "init" for path in found)

    def _require_run(self, resume: bool) -> None:
        if not resume:
            raise RunExistsError(
                f"{self.path} exists and is not empty; required: a new or empty folder. Continue "
                "that run with --resume, or choose another folder with --out"
            )
        if not (self.path / _CONFIG).is_file():
            raise RunExistsError(
                f"{self.path} holds no config.yaml, so it is no run to continue. "
                "Choose another folder with --out"
            )

    def _begin(self, settings: Mapping[str, object], inputs: Mapping[str, str]) -> None:
        write_json_atomic(self.path / _INPUTS, inputs)
        write_json_atomic(self.path / _ENVIRONMENT, environment())
        write_text_atomic(self.path / _CONFIG, yaml.safe_dump(settings, sort_keys=False))

    def _require_same(self, settings: Mapping[str, object], inputs: Mapping[str, str]) -> None:
        """Raises if settings, data or models differ from those the run started with."""
        saved = self.settings
        changed = sorted(
            str(key)
            for key in saved.keys() | settings.keys()
            if saved.get(key) != settings.get(key)
        )
        if changed:
            named = [f"{k}: {shown(saved.get(k))} -> {shown(settings.get(k))}" for k in changed]
            more = f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            raise RunExistsError(
                f"{self.path} was made with other settings ({'; '.join(named[:_SHOWN])}{more}), "
                f"by its {_CONFIG}; required: the same settings to continue it. Choose another "
                "folder with --out"
            )
        path = self.path / _INPUTS
        if not path.exists():
            if inputs:
                logger.warning(
                    "%s is missing; that data and models are those of the beginning is not checked",
                    path,
                )
                write_json_atomic(path, inputs)
            return
        before = read_mapping(path, json.loads)
        for name in sorted(inputs):
            if not isinstance(before.get(name), str):
                raise DamagedRunError(f"{path}: found no digest of {name}; required: one. {REMEDY}")
            if before[name] != inputs[name]:
                raise RunExistsError(
                    f"{self.path}: what {name} names ({settings.get(name)!r}) has changed since "
                    "the run began; required: the same data and models to continue it. Restore "
                    "them, or begin a new run in another folder with --out"
                )

    def _require_whole(self) -> None:
        """Verifies every finished step and its files."""
        if (self.path / _ENVIRONMENT).is_file():
            read_mapping(self.path / _ENVIRONMENT, json.loads)
        described: dict[str, tuple[str, object]] = {}
        for step, done in self._done().items():
            for name, facts in done.files.items():
                described[name] = (step, facts)
        for name, (step, facts) in described.items():
            found = find_damage({name: facts}, base=self.path)
            if found is not None:
                raise DamagedRunError(
                    f"{found}, as step {step!r} of the run left it. Restore it from a copy; or "
                    f"remove {self._steps / step}.json, and the step is taken again"
                )

    def require_all_steps(self) -> None:
        """Raises if a step file is missing, for runs that cannot repeat steps.

        Raises:
            DamagedRunError: Naming the number of the first.
        """
        if self._free_order() < len(self._orders):
            raise DamagedRunError(
                f"{self._steps}: found no file of step {self._free_order()}, and of "
                f"{len(self._orders)} others; required: all. {REMEDY}"
            )

    def _free_order(self) -> int:
        """The number of the next step: of one that is taken again, its own."""
        last = len(self._orders)
        if not self._orders or max(self._orders) == last - 1:
            return last
        return next(number for number in range(last) if number not in self._orders)

    def _done(self) -> dict[str, Step]:
        """The finished steps by name, in their order."""
        steps = {path.stem: read_step(path) for path in self._steps.glob("*.json")}
        return dict(sorted(steps.items(), key=lambda item: (item[1].order, item[0])))

    def _rebuild(self) -> None:
        """Makes `metrics.jsonl` and `records.jsonl` from the finished steps."""
        steps = self._done()
        self._orders = {done.order for done in steps.values()}
        metrics = [json_text({"step": step, **done.result}) for step, done in steps.items()]
        kept = [self._steps / f"{step}.jsonl" for step in steps]
        records = "".join(path.read_text(encoding="utf-8") for path in kept if path.is_file())
        for path, text in (
            (self.metrics, "".join(f"{line}\n" for line in metrics)),
            (self.records, records),
        ):
            held = path.read_bytes() if path.is_file() else None
            if (path.exists() or text) and held != text.encode():
                write_text_atomic(path, text)


def remove_unused_runs() -> None:
    """Removes the folders of runs started by this process that recorded nothing.

    For a command that ends by a mistake of its user: corrected, it begins in the same folder.
    """
    for run, existed in list(_begun.items()):
        if run._has_recorded():
            continue
        for path in list(run.path.iterdir()) if run.path.is_dir() else []:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not existed:
            shutil.rmtree(run.path, ignore_errors=True)
        del _begun[run]


__all__ = [
    "DamagedRunError",
    "RunBusyError",
    "RunDirectory",
    "RunExistsError",
    "StorageError",
    "environment",
    "new_folder",
    "remove_unused_runs",
    "step_seed",
]

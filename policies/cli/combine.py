"""`prefsearch policy combine`: evaluations of several seeds in one report."""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from policies.cli.evaluate_args import CombineArgs, PolicyEvaluateArgs, require_finished
from policies.evaluation.cells import BEST_OF_N, Record
from policies.evaluation.clusters import clusters_of, with_clusters
from policies.evaluation.gain_format import method_name
from policies.evaluation.gain_report import records_of, write_gain_pages
from policies.evaluation.pooled import Pool
from policies.evaluation.runner import load_pool
from prefsearch.cli.console import PlainConsole
from prefsearch.config.settings import settings_of_class
from prefsearch.run.directory import DamagedRunError, RunDirectory
from prefsearch.storage.json_text import read_json

Cells = dict[tuple[str, str], list[Record]]
"""The records of one run by method and budget, in the order of prompts."""
# What cannot change the answer to a prompt, and which cells there are.
_FREE = (
    "seed", "search_batch_size", "max_rows", "limit", "on_bad_row", "on_long_prompt",
    "method", "budget", "methods", "budgets", "pool",
)  # fmt: skip
_FIELDS = ("method", "budget", "prompt", "proxy", "gold", "tokens")
# Trained anew with each seed: only whether there is one is compared.
_MODELS = ("policy", "reward_model", "value_head", "reference")
# Where prompts come from: these may differ where the prompts do not.
_PROMPTS = ("dataset", "split", "format", "prompt_column", "implicit_prompt")
# Of settings that an older run did not have.
_DEFAULTS = {n: one.default for n, one in settings_of_class(PolicyEvaluateArgs).items()}


def combine(args: CombineArgs) -> None:
    """Writes the report.

    Raises:
        ValueError: If a folder holds no finished evaluation, two are the same, they differ in what
            makes their scores comparable, or have no method and budget in common.
    """
    for name in args.runs:
        require_finished(name)
    runs = {name: RunDirectory.at(name) for name in args.runs}
    settings = {name: _DEFAULTS | run.settings for name, run in runs.items()}
    _require_comparable(settings, other_prompts=args.other_prompts)
    found: dict[str, Cells] = {}
    pools: dict[Hashable, Pool] = {}
    for name, run in runs.items():
        pools[name] = load_pool(run)
        # Named anew, since older runs may have named clusters otherwise.
        records = with_clusters(_records(run, len(_prompts(name))), clusters_of(_prompts(name)))
        found[name] = _cells([{**record, "run": name} for record in records])
    _require_one_scale(settings, found)
    _require_different(settings, found)
    kept, left = _common(found)
    notes = _notes(settings, left)
    out = RunDirectory.open(args.out, {"runs": args.runs}, resume=args.resume)
    console = PlainConsole()
    console.print(
        write_gain_pages(
            out,
            kept,
            pools,
            subtitle=f"{len(settings)} evaluations",
            configuration={"runs": settings},
            note="\n\n".join(notes),
        )
    )
    for note in notes:
        console.print(note)
    console.print(f"Open {out.report} in a browser.")


def _records(run: RunDirectory, prompts: int) -> Sequence[Record]:
    """The records of an evaluation, each with what a comparison needs."""
    records = records_of(run)
    for number, record in enumerate(records, start=1):
        lacking = [name for name in _FIELDS if name not in record]
        prompt = record.get("prompt")
        if lacking or not isinstance(prompt, int) or not 0 <= prompt < prompts:
            what = f"no {', '.join(lacking)}" if lacking else f"prompt {prompt!r} of {prompts}"
            raise DamagedRunError(
                f"{run.records}, record {number}: found {what}; required: {', '.join(_FIELDS)}. "
                "Restore the run from a copy, or leave it out"
            )
    return records


def _prompts(folder: str) -> list[object]:
    """The prompts of an evaluation."""
    path = Path(folder) / "data" / "prompts.json"
    found = read_json(path)
    if not isinstance(found, list) or not all(isinstance(p, str | list) for p in found):
        raise DamagedRunError(
            f"{path}: found a JSON {type(found).__name__} of something else; required: a list of "
            "prompts. Restore it from a copy, or leave the run out"
        )
    return found


def _require_comparable(
    settings: Mapping[str, Mapping[str, object]], *, other_prompts: bool = False
) -> None:
    """Refuses the same evaluation twice, and evaluations whose scores mean different things."""
    for one, two in itertools.combinations(settings, 2):
        mine, theirs = settings[one], settings[two]
        differing = [k for k in sorted({*mine, *theirs}) if mine.get(k) != theirs.get(k)]
        compared = [k for k in differing if k not in _FREE and not _alike(k, mine, theirs)]
        sources = [key for key in compared if key in _PROMPTS]
        if sources and (other_prompts or _prompts(one) == _prompts(two)):
            compared = [key for key in compared if key not in sources]
        if other_prompts and all(str(s.get("gold")).startswith("answers:") for s in (mine, theirs)):
            compared = [key for key in compared if key != "gold"]
        if compared:
            each = ", ".join(f"{k} {mine.get(k)!r} and {theirs.get(k)!r}" for k in compared)
            more = ""
            if sources:
                more = (
                    ". Prompts of different files are combined with --other_prompts, if they are "
                    "of one kind"
                )
            raise ValueError(
                f"{one} and {two} were evaluated with different settings: {each}; required: the "
                f"same. Leave one out, or evaluate it again{more}"
            )
        if not set(differing) & {"seed", *_MODELS, *_PROMPTS}:
            raise ValueError(
                f"{one} and {two} have the same seed, models and prompts, so they are one sample; "
                "required: a seed each. Evaluate with another --seed, and best with models trained "
                "with it"
            )


def _alike(key: str, mine: Mapping[str, object], theirs: Mapping[str, object]) -> bool:
    """Whether two different values are both those of a model, which each seed has its own of."""
    return key in _MODELS and mine.get(key) is not None and theirs.get(key) is not None


def _require_one_scale(
    settings: Mapping[str, Mapping[str, object]], found: Mapping[str, Cells]
) -> None:
    """Refuses to average the scores of several reward models where there is no gold score."""
    scored = all(
        r["gold"] is not None for cells in found.values() for c in cells.values() for r in c
    )
    models = list(dict.fromkeys(str(one.get("reward_model")) for one in settings.values()))
    if not scored and len(models) > 1:
        raise ValueError(
            f"found {len(models)} reward models ({', '.join(models)}) and no gold score, required: "
            "one reward model, or a gold score in every run, since each reward model has a scale "
            "of its own and a mean over several says nothing. Evaluate with --gold, or combine "
            "runs of one reward model"
        )


def _require_different(
    settings: Mapping[str, Mapping[str, object]], found: Mapping[str, Cells]
) -> None:
    """Refuses an evaluation that stands twice, be it under other names or in other batches."""
    for one, two in itertools.combinations(found, 2):
        common = [cell for cell in found[one] if cell in found[two]]
        equal = {cell: _equal(found[one][cell], found[two][cell]) for cell in common}
        drawn = [cell for cell in common if cell[0] == BEST_OF_N]
        # Without draws, as of ranked tokens, searches with two seeds may be equal; samples are not.
        same_seed = settings[one].get("seed") == settings[two].get("seed")
        if (drawn and all(equal[cell] for cell in drawn)) or (same_seed and any(equal.values())):
            raise ValueError(
                f"{one} and {two} have the same scores and tokens at every prompt, so they are one "
                "sample though their settings differ; required: evaluations with seeds of their "
                "own. Leave one out, or evaluate with another --seed"
            )


def _equal(mine: Sequence[Record], theirs: Sequence[Record]) -> bool:
    """Whether two runs gave one cell's prompts the same scores and tokens, up to rounding."""
    keys = ("prompt", "cluster")
    if [[r[k] for k in keys] for r in mine] != [[r[k] for k in keys] for r in theirs]:
        return False
    values = [
        np.array([[r["proxy"], r["tokens"], r["gold"] or 0.0] for r in rows], dtype=float)
        for rows in (mine, theirs)
    ]
    varies = bool((values[0] != values[0][0]).any())
    return varies and bool(np.allclose(*values, rtol=1e-3, atol=1e-4))


def _cells(records: Sequence[Record]) -> Cells:
    found: Cells = {}
    for record in sorted(records, key=lambda record: record["prompt"]):
        found.setdefault((record["method"], record["budget"]), []).append(record)
    return found


def _common(found: Mapping[str, Cells]) -> tuple[list[Record], dict[tuple[str, str], list[str]]]:
    """Records of the methods and budgets that every run has, and which runs have the others."""
    having: dict[tuple[str, str], list[str]] = {}
    for run, cells in found.items():
        for cell in cells:
            having.setdefault(cell, []).append(run)
    left = {cell: runs for cell, runs in having.items() if len(runs) < len(found)}
    kept = [
        r for cells in found.values() for cell in cells if cell not in left for r in cells[cell]
    ]
    if not kept:
        raise ValueError(
            f"{', '.join(found)} have no method and budget in common, required: at least one. "
            "Evaluate them with the same methods and budgets"
        )
    return kept, left


def _notes(
    settings: Mapping[str, Mapping[str, object]], left: Mapping[tuple[str, str], Sequence[str]]
) -> list[str]:
    """What the report leaves out, and what its intervals do not cover."""
    notes: list[str] = []
    if len({(one.get("policy"), one.get("reward_model")) for one in settings.values()}) == 1:
        notes.append(
            "All runs have one policy and one reward model: their seeds differ in draws alone, and "
            "nothing is known of models that were trained with another seed."
        )
    if len({one.get("reward_model") for one in settings.values()}) > 1:
        notes.append(
            "The runs' reward models differ, so proxies are means over scores of different scales: "
            "compare gold."
        )
    if left:
        named = "; ".join(
            f"{method_name({'method': method, 'budget': budget})} (only in {', '.join(runs)})"
            for (method, budget), runs in left.items()
        )
        notes.append(f"Left out, since not every run has them: {named}.")
    return notes

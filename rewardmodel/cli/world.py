"""`prefsearch reward world` and `label`: the embedded world and its simulated human."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from prefsearch.cli.console import PlainConsole
from prefsearch.cli.outputs import Output
from prefsearch.config.bounds import Count, Seed, Within
from prefsearch.config.checks import check_types, require
from prefsearch.run.directory import step_seed
from prefsearch.storage.files import write_text_atomic
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.formats.fields import take_list
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.parsing.finished import replies_finished
from rewardmodel.data.parsing.reply_text import split_prompt, take_turns
from rewardmodel.data.rows import OnBadRow, Row, parse_rows
from rewardmodel.data.sources.sources import read_rows
from rewardmodel.pretrained.places import keep_inputs
from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.synthetic.requests import count_held_out, sample_requests
from rewardmodel.synthetic.world import demonstrations

_WORLD = ("demonstrations", "prompts", "held_out_prompts")


@dataclass
class WorldJob:
    """Write the embedded world's demonstrations and held-out prompts to files.

    Attributes:
        out: Folder for demonstrations.jsonl, prompts.jsonl and held_out_prompts.jsonl.
        demonstrations: Texts to learn to write from.
        prompts: Prompts to sample from, and as many held-out ones: at most as many as there are
            held-out sets of things.
        seed: Of the draws. What is held out is the same for all seeds; consecutive seeds write
            different held-out prompts.
    """

    out: str = "runs/world"
    demonstrations: Annotated[int, Within(least=1, most=10_000_000)] = 6000
    prompts: Count = 200
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        most = count_held_out()
        bounds = f"1 to {most}, the held-out assignments of the embedded world"
        require(1 <= self.prompts <= most, "prompts", self.prompts, bounds)
        keep_inputs(self)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, tuple(f"{name}.jsonl" for name in _WORLD))]


def world(job: WorldJob) -> None:
    """Writes the embedded world; see `WorldJob`."""
    folder = Path(job.out)
    told = demonstrations(job.demonstrations, seed=job.seed)
    write_text_atomic(folder / "demonstrations.jsonl", json_lines(told))
    requests = {
        # Other requests than those that the demonstrations answer.
        "prompts": sample_requests(job.prompts, seed=step_seed(job.seed, "prompts")),
        # The seed itself: consecutive seeds have no held-out prompt in common.
        "held_out_prompts": sample_requests(job.prompts, seed=job.seed, held_out=True),
    }
    for name, drawn in requests.items():
        rows = [{"prompt": request.prompt} for request in drawn]
        write_text_atomic(folder / f"{name}.jsonl", json_lines(rows))
    PlainConsole().print(f"World: {folder}")


@dataclass
class LabelJob:
    """Let the simulated human compare responses, two by two, into preference pairs.

    Attributes:
        responses: JSON lines of `prompt` and `responses`, and `finished` of each, as `prefsearch
            policy sample` writes them.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: File for the preference pairs.
        seed: Of the human's choices.
    """

    responses: str = ""
    on_bad_row: OnBadRow = "error"
    out: str = "runs/world/preferences.jsonl"
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Checks types."""
        check_types(self)
        require(bool(self.responses), "responses", self.responses, "a file, by --responses")
        keep_inputs(self, "responses")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out)]


def _responses(row: Row) -> tuple[Prompt, list[str], list[bool]]:
    """Prompt, responses and which are finished, of a row of samples.

    Raises:
        PreferenceDataError: There are none.
    """
    turns = take_turns(row, "prompt", option="prompt_column")
    prompt, _ = split_prompt(turns, [], None, row=row, keep_messages=True)
    required = "a list of texts, as `prefsearch policy sample` writes it"
    texts = take_list(row, "responses", str, required=required)
    return prompt, texts, [told is not False for told in replies_finished(row, len(texts))]


def label(job: LabelJob) -> None:
    """Labels pairs; see `LabelJob`."""
    triples: list[tuple[Prompt, str, str]] = []
    ended: list[tuple[bool, bool]] = []
    rows = read_rows(job.responses, split="train")
    sampled = parse_rows(
        rows, _responses, source=job.responses, on_bad_row=job.on_bad_row, limit=None
    )
    for prompt, texts, told in sampled:
        triples += [(prompt, a, b) for a, b in zip(texts[::2], texts[1::2], strict=False)]
        ended += zip(told[::2], told[1::2], strict=False)
    if not triples:
        raise ValueError(f"{job.responses} holds no pair; required: two responses a prompt or more")
    pairs, ties = SimulatedHuman().label(*zip(*triples, strict=True), seed=job.seed, finished=ended)
    write_text_atomic(job.out, json_lines(pairs))
    PlainConsole().print(f"{len(pairs)} pairs, {ties} ties left out: {job.out}")

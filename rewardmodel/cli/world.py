"""`prefsearch reward world` and `label`: the synthetic task and its simulated human."""

from pathlib import Path

from prefsearch.cli.console import PlainConsole
from prefsearch.run.directory import step_seed
from prefsearch.storage.files import write_text_atomic
from rewardmodel.cli.data_args import LabelArgs, WorldArgs
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.formats.fields import take_list
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.parsing.finished import replies_finished
from rewardmodel.data.parsing.reply_text import split_prompt, take_turns
from rewardmodel.data.rows import Row, parse_rows
from rewardmodel.data.sources.sources import read_rows
from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.synthetic.requests import sample_requests
from rewardmodel.synthetic.world import demonstrations


def world(args: WorldArgs) -> None:
    """Writes the synthetic task."""
    folder = Path(args.out)
    texts = demonstrations(args.demonstrations, seed=args.seed)
    write_text_atomic(folder / "demonstrations.jsonl", json_lines(texts))
    requests = {
        # Other requests than those that the demonstrations answer.
        "prompts": sample_requests(args.prompts, seed=step_seed(args.seed, "prompts")),
        # The seed itself: consecutive seeds have no held-out prompt in common.
        "held_out_prompts": sample_requests(args.prompts, seed=args.seed, held_out=True),
    }
    for name, drawn in requests.items():
        rows = [{"prompt": request.prompt} for request in drawn]
        write_text_atomic(folder / f"{name}.jsonl", json_lines(rows))
    PlainConsole().print(f"World: {folder}")


def _responses(row: Row) -> tuple[Prompt, list[str], list[bool]]:
    """Prompt, responses and which are finished, of a row of samples.

    Raises:
        PreferenceDataError: There are none.
    """
    turns = take_turns(row, "prompt", option="prompt_column")
    prompt, _ = split_prompt(turns, [], None, row=row, keep_messages=True)
    required = "a list of texts, as `prefsearch policy sample` writes it"
    texts = take_list(row, "responses", str, required=required)
    return prompt, texts, [mark is not False for mark in replies_finished(row, len(texts))]


def label(args: LabelArgs) -> None:
    """Labels pairs."""
    triples: list[tuple[Prompt, str, str]] = []
    ended: list[tuple[bool, bool]] = []
    rows = read_rows(args.responses, split="train")
    sampled = parse_rows(
        rows, _responses, source=args.responses, on_bad_row=args.on_bad_row, limit=None
    )
    for prompt, texts, marks in sampled:
        triples += [(prompt, a, b) for a, b in zip(texts[::2], texts[1::2], strict=False)]
        ended += zip(marks[::2], marks[1::2], strict=False)
    if not triples:
        raise ValueError(
            f"{args.responses} holds no pair; required: two responses a prompt or more"
        )
    pairs, ties = SimulatedHuman().label(
        *zip(*triples, strict=True), seed=args.seed, finished=ended
    )
    write_text_atomic(args.out, json_lines(pairs))
    PlainConsole().print(f"{len(pairs)} pairs, {ties} ties left out: {args.out}")

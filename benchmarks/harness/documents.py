"""Writes the figures of README.md and docs/ from the JSON files in `docs/results`.

    python benchmarks/harness/documents.py            # rewrites every block of figures
    python benchmarks/harness/documents.py --check    # changes nothing; fails where a document
    differs

A block is the text between `<!-- figures: NAME -->` and `<!-- end of figures: NAME -->`. One
function makes it from results files, and its last lines have the command, commit, date, machine,
seeds and rounds of each. Where the files that a result depends on (`SOURCES` in provenance.py) have
changed since, the block is marked as older than the code, until the benchmark is run again. A block
whose results file is missing is left as it is, with a warning, and fails a check. So do numbers
outside all blocks (`benchmarks/harness/unsourced_numbers.py`).
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.harness import documents_atari, documents_planning, documents_reward, documents_text
from benchmarks.harness.provenance import FIELDS, NOT_RECORDED, ROOT, SOURCES, source_digest
from benchmarks.harness.unsourced_numbers import unsourced_in
from benchmarks.harness.worker import Json
from prefsearch.storage.files import write_text_atomic

OLDER = "older than the code"
_RENAMED = ('"guided decoding"', '"controlled decoding"')  # a method in older results


@dataclass(frozen=True)
class Block:
    """A part of a document that is made from results.

    Attributes:
        document: Its path in the repository.
        name: In the marks around it; unique.
        results: Names of the files in `docs/results` that it reads, without ending.
        render: Takes the content of these files, in that order, and returns paragraphs of Markdown.
    """

    document: str
    name: str
    results: tuple[str, ...]
    render: Callable[..., list[str]]

    @property
    def marks(self) -> tuple[str, str]:
        """The lines before and after it."""
        return f"<!-- figures: {self.name} -->", f"<!-- end of figures: {self.name} -->"


README, ATARI = "README.md", "docs/atari.md"
TEXT, REWARD, REAL = "docs/text_search.md", "docs/reward_models.md", "docs/real_data.md"
BLOCKS = (
    Block(README, "demo", ("demo",), documents_text.demo),
    Block(README, "methods compared", ("text_gains",), documents_text.methods_compared),
    Block(README, "planning core", ("planning_core",), documents_planning.planning_core),
    Block(README, "leaves per step", ("leaves_per_step",), documents_planning.leaves_per_step),
    Block(README, "UpNDown in short", ("atari_cpu",), documents_atari.cpu_in_short),
    Block(TEXT, "costs of search", ("text_search", "text_search_one_thread"), documents_text.costs),
    Block(TEXT, "planner defaults", ("text_planner_defaults",), documents_text.planner_defaults),
    Block(TEXT, "gains", ("text_gains",), documents_text.gains),
    Block(REWARD, "MiniLM", ("hh_minilm",), documents_reward.pretrained_encoder),
    Block(REWARD, "training", ("reward_training",), documents_reward.training),
    Block(REWARD, "scoring", ("reward_scoring",), documents_reward.scoring),
    Block(REAL, "real data", ("real_data",), documents_reward.real_data),
    Block(ATARI, "true simulator", ("atari_true_simulator",), documents_atari.true_simulator),
    Block(ATARI, "CartPole", ("cartpole",), documents_atari.cartpole),
    Block(ATARI, "UpNDown", ("atari_cpu",), documents_atari.cpu),
    Block(ATARI, "beside LightZero", ("atari_speed",), documents_atari.speed),
    Block(ATARI, "torch.compile", ("atari_compile",), documents_atari.compiling),
)


def rendered(block: Block, root: Path = ROOT) -> str:
    """A block's text, without its marks."""
    results = [read_results(name, root) for name in block.results]
    notes = [
        measured_note(name, found, block.document, root)
        for name, found in zip(block.results, results, strict=True)
    ]
    return "\n\n".join([*block.render(*results), *notes])


def read_results(name: str, root: Path = ROOT) -> Json:
    """The content of a results file, methods by their present names."""
    text = _results_file(name, root).read_text(encoding="utf-8")
    return json.loads(text.replace(*_RENAMED))


def measured_note(name: str, results: Json, document: str, root: Path = ROOT) -> str:
    """Where figures come from and whether they are older than the code, in one line.

    Raises:
        ValueError: If the results do not record it.
    """
    found = results.get("provenance", {})
    missing = [field for field in FIELDS if field not in found]
    if missing:
        raise ValueError(
            f"docs/results/{name}.json: found a provenance without {', '.join(missing)}; required: "
            f"{', '.join(FIELDS)}. Run the benchmark again, or write {NOT_RECORDED!r} for what its "
            "run did not record"
        )
    folder = "results" if document.startswith("docs/") else "docs/results"
    commit = found["commit"] or NOT_RECORDED
    commit = f"commit {commit}" if commit == NOT_RECORDED else f"at commit {commit[:7]}"
    parts = [
        f"[{name}.json]({folder}/{name}.json): {_command(name, found['command'])}",
        commit + (" with changes" if found["uncommitted_changes"] is True else ""),
        str(found["date"])[:10],
    ]
    cores = found["machine"] if isinstance(found["machine"], str) else found["machine"]["cores"]
    parts.append(f"cores {cores}" if cores == NOT_RECORDED else f"{cores} cores")
    if found["seeds"] == NOT_RECORDED:
        parts.append(f"seeds {NOT_RECORDED}")
    elif found["seeds"]:
        parts.append(f"seed{'s' * (len(found['seeds']) > 1)} {', '.join(map(str, found['seeds']))}")
    if found["rounds"]:
        parts.append(f"{found['rounds']} rounds")
    if found["source_digest"] != source_digest(name, root):
        parts.append(f"**{OLDER}**")
    return f"*{', '.join(parts)}.*"


def _command(name: str, recorded: str) -> str:
    """The command that makes a result today, and the script that made it if that was another."""
    sources = SOURCES[name]
    if recorded == NOT_RECORDED:
        return f"`{sources.command}` (the options of the run were not recorded)"
    script, *options = recorded.removeprefix("python ").split(maxsplit=1)
    current = sources.script.removeprefix("python ")
    if sources.command == sources.script:
        now = " ".join([sources.script, *options])
    else:
        now = sources.command
    return f"`{now}`" + (f" (then `{script}`)" if script != current else "")


def missing_results(root: Path = ROOT) -> list[str]:
    """The results files that blocks read and that do not exist, each with what makes it."""
    return [
        f"docs/results/{name}.json is missing, which the figures {block.name!r} of "
        f"{block.document} are made from; they are not changed. Run: {SOURCES[name].command}"
        for block in BLOCKS
        for name in block.results
        if not _results_file(name, root).is_file()
    ]


def _results_file(name: str, root: Path) -> Path:
    return root / "docs" / "results" / f"{name}.json"


def rewritten(document: str, text: str, root: Path = ROOT) -> str:
    """A document with all its blocks rendered, but for those whose results are missing.

    Raises:
        ValueError: If marks are missing, doubled, or belong to no block.
    """
    blocks = {block.name: block for block in BLOCKS if block.document == document}
    found = re.findall(r"<!-- figures: (.+?) -->", text)
    if sorted(found) != sorted(blocks):
        raise ValueError(
            f"{document}: found blocks of figures {sorted(found)}; required: {sorted(blocks)}, "
            "each once. Put the marks back, or change BLOCKS in benchmarks/harness/documents.py"
        )
    for block in blocks.values():
        begin, end = block.marks
        if text.count(end) != 1 or text.index(end) < text.index(begin):
            raise ValueError(f"{document}: required {end!r} once, after {begin!r}")
        if not all(_results_file(name, root).is_file() for name in block.results):
            continue  # `missing_results` names them
        before, after = text.partition(begin)[0], text.partition(end)[2]
        text = f"{before}{begin}\n{rendered(block, root)}\n{end}{after}"
    return text


def differing(root: Path = ROOT, *, write: bool) -> list[str]:
    """The documents whose blocks differ from the results, which are rewritten if `write`."""
    found = []
    for document in dict.fromkeys(block.document for block in BLOCKS):
        path = root / document
        text = path.read_text(encoding="utf-8")
        made = rewritten(document, text, root)
        if made != text:
            found.append(document)
            if write:
                write_text_atomic(path, made)
    return found


def update(results: Path) -> None:
    """Rewrites the documents after a benchmark wrote its results, if documents read that file.

    Call it when the results and their pictures are written. Results of other benchmarks that are
    missing are named on standard error.
    """
    if results.resolve().parent == ROOT / "docs" / "results":
        differing(write=True)
        _warn(missing_results())


def _warn(messages: list[str]) -> None:
    for message in messages:
        print(f"WARNING: {message}", file=sys.stderr)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Rewrites or checks; 1 if a check found a difference or missing results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if stale or missing"
    )
    options = parser.parse_args(arguments)
    found = differing(root, write=not options.check)
    for document in found:
        print(f"{document} {'differs from its results' if options.check else 'rewritten'}")
    if found and options.check:
        print("run: python benchmarks/harness/documents.py")
    missing = missing_results(root)
    _warn(missing)
    loose = unsourced_in(root)
    for figure in loose:
        print(f"outside a block of figures: {figure}")
    return int(bool(found or missing or loose) and options.check)


if __name__ == "__main__":
    sys.exit(main())

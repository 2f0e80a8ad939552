"""What messages tell the user to type exists, and works when it is typed."""

import ast
import inspect
import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from policies.cli.args import PromptArgs
from policies.cli.loading import prompts_for
from prefsearch.cli import entry
from prefsearch.cli.command_line import as_flags, for_python
from prefsearch.config.settings import build, settings_of_class
from rewardmodel.data.rankings import load_rankings
from rewardmodel.models.process import load_step_scorer
from rewardmodel.models.sequence import load_scorer
from search.viewer.args import TreeShowArgs
from tests.reward_folders import save_classifier
from tests.settings_classes import commands

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rewardmodel", "policies", "prefsearch", "search", "atari_bridge")
# Flags of programs that are not ours, and stand-ins of usage lines.
FOREIGN = {"no-deps", "upgrade", "nproc_per_node", "cpu", "multi_gpu", "flag", "config", "help"}
# Files that write pages and graphs, whose attributes and colors look like advice.
PAGES = ("search/viewer/page", "prefsearch/report/", "rewardmodel/data/report")
TREE_FLAGS = {name.replace("_", "-") for name in settings_of_class(TreeShowArgs)}
# Keyword arguments of other libraries that messages name.
OTHERS = {"task_type", "modules_to_save", "function_to_apply"}


COMMANDS = commands()


def flags_of(config: type) -> set[str]:
    return set(settings_of_class(config))


@cache
def trees(package: str) -> dict[Path, ast.Module]:
    """The files of a package, parsed."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@cache
def texts(package: str, *, docstrings: bool = True) -> list[tuple[str, str]]:
    """Where a string of a package stands, and the string, an f-string with its values as {}."""
    found = []
    for path, tree in trees(package).items():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(PAGES):
            continue
        nodes = list(ast.walk(tree))
        joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
        skipped = {id(value) for node in joined for value in node.values}
        if not docstrings:
            skipped |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in joined:
            parts = [str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values]
            found.append((f"{name}:{node.lineno}", "".join(parts)))
        for node in nodes:
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in skipped:
                found.append((f"{name}:{node.lineno}", node.value))
    return found


@cache
def keywords() -> set[str]:
    """All names of parameters and of fields."""
    known = set(OTHERS)
    for node in (n for name in PACKAGES for tree in trees(name).values() for n in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef):
            args = node.args
            known |= {a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            known.add(node.target.id)
    return known


@pytest.mark.parametrize("package", PACKAGES)
def test_every_flag_that_a_text_names_belongs_to_a_command(package: str) -> None:
    known = set().union(*map(flags_of, COMMANDS.values())) | FOREIGN | TREE_FLAGS
    for place, text in texts(package):
        for flag in re.findall(r"(?<![\w-])--([a-z][\w-]*)", text):
            assert flag in known, f"{place}: no command has --{flag}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_command_that_a_text_names_exists_with_the_flags_beside_it(package: str) -> None:
    for place, text in texts(package):
        for name, verb, rest in re.findall(
            r"`prefsearch (reward|policy|atari) (\w+)([^`]*)`", " ".join(text.split())
        ):
            if verb == "SUBCOMMAND":
                continue
            assert f"{name} {verb}" in COMMANDS, f"{place}: no `prefsearch {name} {verb}`"
            unknown = set(re.findall(r"--(\w+)", rest)) - flags_of(COMMANDS[f"{name} {verb}"])
            assert not unknown - {"config", "help"}, f"{place}: {name} {verb} has no {unknown}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_keyword_that_an_error_names_is_an_argument_of_something(package: str) -> None:
    for place, text in texts(package, docstrings=False):
        for name in re.findall(r"\b([a-z_]+)=(?:['\"]\w|True\b|NAME\b|AutoTokenizer)", text):
            assert name in keywords(), f"{place}: nothing takes {name}="


# The commands that read rows, each with the files whose errors it may show.
_DATA = ["rewardmodel/data/parsing", "rewardmodel/data/sources", "rewardmodel/data/preferences.py"]
READERS = {
    **{f"reward {name}": _DATA for name in ("inspect", "convert", "split", "train", "evaluate")},
    **{f"policy {name}": _DATA for name in ("sample", "plan", "value", "finetune", "sft")},
    "reward score": ["rewardmodel/cli/models.py", "rewardmodel/data/parsing/prompt_columns.py"],
    "reward train_prm": [
        "rewardmodel/data/steps.py",
        "rewardmodel/data/parsing/prompt_columns.py",
    ],
}
# Not for a command's user: what it does by itself, and whether a pair's columns are named where
# the rows are prompts or demonstrations, which have none.
_NOT_ADVISED = {
    "keep_messages": set(COMMANDS),
    "encoder": set(COMMANDS),
    "format": {"policy sft", "reward score", "reward train_prm"},
    "chosen_column": {name for name in COMMANDS if name.startswith("policy")},
    "rejected_column": {name for name in COMMANDS if name.startswith("policy")},
}


@pytest.mark.parametrize("command", READERS)
def test_every_keyword_of_the_loaders_has_a_flag_in_each_command_that_reads_rows(command) -> None:
    config = COMMANDS[command]
    for place, text in texts("rewardmodel", docstrings=False):
        if not place.startswith(tuple(READERS[command])):
            continue
        for name in re.findall(r"\b([a-z_]+)=(?:['\"]\w|True\b|NAME\b|AutoTokenizer)", text):
            if command in _NOT_ADVISED.get(name, ()):
                continue
            said = as_flags(f"pass {name}='x'", config)
            assert said.startswith("pass --"), f"{place}: {command} has no flag for {name}="


def test_advice_is_written_as_the_command_s_flags() -> None:
    config = COMMANDS["reward convert"]
    for python, flag in {
        "prompt_column='question', or rename it": "--prompt_column question, or rename it",
        "pass prompt_column='my col'.": "pass --prompt_column 'my col'.",
        '(on_bad_row="skip")': "(--on_bad_row skip)",
        "Pass prompt_column=NAME if": "Pass --prompt_column NAME if",
        "implicit_prompt=True if": "--implicit_prompt if",
        "Pass tokenizer=AutoTokenizer.from_pretrained(NAME) of": "Pass --model NAME of",
        'pass ties="keep".': 'pass ties="keep" (in Python).',
        "Pass columns={'answer': {}}": "Pass columns={'answer': {}} (in Python)",
        "margin=2 and x == 'y'": "margin=2 and x == 'y'",
    }.items():
        assert as_flags(python, config) == flag
    assert as_flags("column='q'", PromptArgs) == "--prompt_column q"


def test_advice_for_a_file_beside_the_dataset_is_not_given_as_the_dataset_s_flags() -> None:
    error = for_python(ValueError("pass prompt_column='q', or drop it (on_bad_row=\"skip\")"))
    said = as_flags(str(error), COMMANDS["reward train"])
    assert said == "pass prompt_column='q' (in Python), or drop it (--on_bad_row skip)"


# -------------------------------------------------------------------- following a message's advice

GOOD = {
    "prompt": "a",
    "chosen": "\n\nHuman: Hi\n\nAssistant: Yes",
    "rejected": "\n\nHuman: Hi\n\nAssistant: No",
}
MARKED = {name: GOOD[name] for name in ("chosen", "rejected")}
ULTRA = {"score_chosen": 1, "score_rejected": 2}
PLAIN = {"chosen": "The sea.", "rejected": "The rose."}
BROKEN: dict[str, tuple[list[dict[str, Any]], str, int]] = {
    # name: rows, the column that NAME stands for, how many ways out the message shows
    "question and context": ([{"question": "Who?", "context": "A text.", **PLAIN}], "", 3),
    "instruction and input": ([{"instruction": "Sing", "input": "C", **PLAIN}], "", 3),
    "context beside transcripts": ([{"context": "Elsewhere.", **MARKED}], "", 2),
    "mistyped prompt": ([{"Prompts": "Who?", **PLAIN}], "", 1),
    "a prompt by another name": (
        [{"frage": "Wer?", **MARKED}, {"frage": "Wer?", **PLAIN}],
        "frage",
        3,
    ),
    "another chosen": ([{"prompt": "a", "chosen_text": "b", "rejected": "c"}], "", 1),
    "another rejected": ([{"prompt": "a", "chosen": "b", "rejectd": "c"}], "", 1),
    "null": ([GOOD, {**GOOD, "chosen": None}], "", 1),
    "identical": ([GOOD, {**GOOD, "chosen": GOOD["rejected"]}], "", 1),
    "an image": ([GOOD, {**GOOD, "image": "a.png"}], "", 1),
    "two system messages": ([GOOD, {**GOOD, "system": "a", "system_prompt": "b"}], "", 1),
    "scores against the choice": (
        [{**GOOD, "score_chosen": 2, "score_rejected": 1}, {**GOOD, **ULTRA}],
        "",
        2,
    ),
    "a late margin": ([GOOD, {**GOOD, "margin": 1}], "", 1),
    "rankings of questions": (
        [{"question": "Who?", "responses": ["a", "b"], "ranks": [1, 2]}],
        "",
        1,
    ),
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ways_out(message: str, config: type, column: str) -> list[list[str]]:
    """The flags that a message shows, each as what would be typed; joined ones together."""
    hints = {name: one.hint for name, one in settings_of_class(config).items()}
    found: list[list[str]] = []
    end = 0
    for match in re.finditer(r"--(\w+)(?: ('[^']*'|[^\s,;)]+))?", message):
        flag, value = match[1], match[2]
        if hints[flag] is bool:
            typed = [f"--{flag}"]
        else:
            (word,) = shlex.split(value.rstrip("."))
            typed = [f"--{flag}", column if word == "NAME" else word]
        if message[end : match.start()] == " and ":
            found[-1] += typed
        else:
            found.append(typed)
        end = match.end() if len(typed) > 1 else match.start() + len(typed[0])
    return found


def given(flag: str, value: str) -> dict[str, Any]:
    """A flag as a keyword argument."""
    return {flag.removeprefix("--"): value}


def run_reward(*argv: object) -> int:
    return entry.main(["reward", *map(str, argv)])


@pytest.mark.parametrize(
    ("verb", "name"), [*(("convert", name) for name in BROKEN), ("inspect", "question and context")]
)
def test_following_a_message_about_pairs_succeeds(verb, name, tmp_path, capsys) -> None:
    rows, column, ways = BROKEN[name]
    out = {"convert": tmp_path / "pairs.jsonl", "inspect": tmp_path / "seen"}[verb]
    argv = [verb, "--dataset", write(tmp_path / "p.jsonl", rows), "--out", out]
    assert run_reward(*argv) == 2
    message = capsys.readouterr().err
    typed = ways_out(message, COMMANDS[f"reward {verb}"], column)
    assert len(typed) == ways, message
    for flags in typed:
        assert run_reward(*argv, *flags) == 0, (message, flags, capsys.readouterr().err)


def test_following_a_message_about_transcripts_of_hh_succeeds(tmp_path, capsys) -> None:
    rows = [MARKED, {"chosen": "\n\nHuman: Hi there", "rejected": "\n\nHuman: Hi you"}]
    path, out = write(tmp_path / "p.jsonl", rows), tmp_path / "pairs.jsonl"
    argv = ["convert", "--dataset", path, "--out", out]
    assert run_reward(*argv, "--format", "hh") == 2
    message = capsys.readouterr().err
    typed = ways_out(message, COMMANDS["reward convert"], "")
    assert typed == [["--format", "plain", "--implicit_prompt"], ["--on_bad_row", "skip"]]
    assert run_reward(*argv, *typed[0]) == 0
    assert run_reward(*argv, "--format", "hh", *typed[1]) == 0


@pytest.mark.parametrize("column", ["frage", "question"])
def test_following_a_message_about_prompts_demonstrations_and_steps_succeeds(
    column, tmp_path, policy, policy_folder, capsys
) -> None:
    path = write(tmp_path / "p.jsonl", [{column: "Who?", "completions": ["a"], "labels": [1]}])

    def prompts(**options: Any) -> Any:
        job = build(PromptArgs, policy=str(policy_folder), dataset=str(path), **options)
        return prompts_for(job, policy)

    with pytest.raises(ValueError, match="'prompt' is missing") as caught:
        prompts()
    ((flag, value),) = ways_out(as_flags(str(caught.value), PromptArgs), PromptArgs, column)
    assert prompts(**given(flag, value)) == ["Who?"]

    from rewardmodel.data.steps import load_steps

    with pytest.raises(ValueError, match="'prompt' is missing") as caught:
        load_steps(path)
    config = COMMANDS["reward train_prm"]
    ((flag, value),) = ways_out(as_flags(str(caught.value), config), config, column)
    assert load_steps(path, **given(flag, value))[0]["prompt"] == "Who?"


def test_following_a_message_of_sft_and_score_succeeds(tmp_path, capsys) -> None:
    from policies.cli.args import SftArgs
    from rewardmodel.cli.models import load_responses
    from rewardmodel.data.preferences import load_demonstrations

    path = write(tmp_path / "p.jsonl", [{"prompt": "Who?", "answer": "I."}])
    with pytest.raises(ValueError, match="'completion' is missing") as caught:
        load_demonstrations(path)
    ((flag, value),) = ways_out(as_flags(str(caught.value), SftArgs), SftArgs, "answer")
    assert len(load_demonstrations(path, **given(flag, value))) == 1
    with pytest.raises(ValueError, match="no responses") as caught:
        load_responses(str(path))
    config = COMMANDS["reward score"]
    ((flag, value),) = ways_out(as_flags(str(caught.value), config), config, "answer")
    assert load_responses(str(path), **given(flag, value))[0]["responses"] == ["I."]


def test_rankings_of_questions_are_read_as_the_message_says(tmp_path) -> None:
    path = write(tmp_path / "p.jsonl", BROKEN["rankings of questions"][0])
    with pytest.raises(ValueError, match="prompt_column='question'"):
        load_rankings(path)
    assert load_rankings(path, prompt_column="question")[0]["prompt"] == "Who?"
    assert "prompt_column" in inspect.signature(load_rankings).parameters


@pytest.mark.parametrize("tokens", [False, True])
def test_a_classifier_of_other_labels_is_not_named_as_what_to_train_from(
    tokens, policy_folder, tmp_path
) -> None:
    folder = save_classifier(policy_folder, tmp_path / "m", seed=0, labels=3, tokens=tokens)
    load = load_step_scorer if tokens else load_scorer
    verb = "train_prm" if tokens else "train"
    with pytest.raises(ValueError, match=rf"3 labels.*base .*`prefsearch reward {verb} --model B"):
        load(str(folder), init_head=False)
    with pytest.raises(ValueError, match="Begin from the base that it was trained from"):
        load(str(folder), init_head=True)  # what training does; it refuses the classifier itself
    assert load(str(policy_folder), init_head=True) is not None

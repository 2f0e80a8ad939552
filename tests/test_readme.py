"""What the README shows runs as it is written."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from prefsearch.cli.command_line import parse
from prefsearch.cli.commands import COMMANDS
from prefsearch.cli.entry import resolve_configuration

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs_from_top_to_bottom(
    demo_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 4
    assert all(len(block.strip().splitlines()) <= 12 for block in blocks)
    shutil.copytree(demo_run, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "best-of-N 16" in printed
    assert "MCTS 8" in printed
    assert (tmp_path / "runs" / "my_policy" / "model.safetensors").is_file()


def test_every_command_of_the_readme_exists() -> None:
    for group in ("reward", "policy", "atari"):
        rows = re.findall(rf"^\| `prefsearch {group} (.*?) \|", README, re.MULTILINE)
        named = {name for row in rows for name in re.findall(r"[a-z_]+", row)}
        assert named == set(COMMANDS[group].subcommands)


def test_every_linked_file_is_there() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def shown_commands() -> list[str]:
    """Every command of prefsearch in the shell blocks of the documents."""
    found = []
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            found += re.findall(r"(?:^|bin/|-m )prefsearch ((?!.*\.\.\.).*)", block, re.MULTILINE)
    return found


@pytest.mark.parametrize("line", shown_commands())
def test_every_command_shown_has_known_flags_and_values(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)
    if words == ["--help"]:
        return
    group, *rest = words
    commands = COMMANDS[group].subcommands
    command = commands[""] if "" in commands else commands[rest.pop(0)]
    parse(command.load_args(), resolve_configuration(rest), prog="prefsearch")


def test_every_script_and_configuration_named_is_there() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = re.sub(r"\(then `[^`]*`\)", "", document.read_text(encoding="utf-8"))
        for path in re.findall(r"\b(?:benchmarks|configs|examples)/[\w/]+\.\w+", text):
            assert (ROOT / path).is_file(), f"{document.name}: {path}"

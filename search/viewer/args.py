"""Arguments of `prefsearch tree show`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from prefsearch.cli.outputs import Output, check_outputs, expand_home, require_kept
from prefsearch.config.bounds import Within
from prefsearch.config.checks import check_types, require
from prefsearch.storage.errors import naming_path
from prefsearch.storage.text_files import refuse_special

# Any integer: what is no tree of the file is named when it is opened.
_Number = Annotated[int, Within(ge=-(2**31), le=2**31)]


@dataclass
class TreeShowArgs:
    """Show the search trees of a file as an HTML page, text or JSON.

    FILE is what search.viewer.file.save_tree wrote, or JSON of the text searches:
    data/search-*.json of a demo or an evaluation, and the lines of
    `prefsearch policy plan --keep_trees N`.

    Examples:
      prefsearch policy plan --config policies/plan_demo --save_trees runs/trees
      prefsearch tree show runs/trees/prompt-0-decision-0.safetensors --open
      prefsearch tree show runs/demo/data/search-gumbel_muzero-8.json --format text --max-depth 3
      prefsearch tree show tree.safetensors --format json --output tree.json

    In Python:
      from search.viewer.file import save_tree
      save_tree(planner.plan(model, observation).tree, "tree.safetensors", title="my search")

    Attributes:
        file: A file of search trees.
        row: Which tree, from 0; null: a page of all, or the first as text or json.
        format: As what it is shown.
        output: Where to write; null: FILE.html beside FILE, and text and json to the terminal.
        open: Open the page in a browser.
        max_depth: Levels below the root.
        max_nodes: Nodes in all, the most visited; what is left out is counted. Null: 200 for text,
            else all.
    """

    POSITIONAL: ClassVar = "file"

    file: str = ""
    row: _Number | None = None
    format: Literal["html", "text", "json"] = "html"
    output: str | None = None
    open: bool = False
    max_depth: _Number | None = None
    max_nodes: _Number | None = None

    def __post_init__(self) -> None:
        """Checks types, and that the file is not written over."""
        check_types(self)
        require(bool(self.file), "file", self.file, "a file of search trees")
        page = self.format == "html"
        require(page or not self.open, "open", self.open, f"false with --format {self.format}")
        expand_home(self, "file", "output")
        if page or self.output is not None:
            check_outputs(self.outputs())
            kept = {"the file to show": self.file}
            require_kept(kept, files=[self.target], setting="output")

    def check_inputs(self) -> None:
        """Checks that the file is there, and is a file."""
        refuse_special(Path(self.file))
        with naming_path(Path(self.file), "read"):
            Path(self.file).stat()

    @property
    def target(self) -> Path:
        """Where a page goes, or what is written to a file."""
        return Path(self.output or f"{self.file}.html")

    def outputs(self) -> list[Output]:
        """What is written."""
        return [Output("output", str(self.target))]

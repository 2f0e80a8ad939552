"""Every page of the project made from texts that would run, load or break something in it."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from atari_bridge.evaluation.report import write_report as write_atari_report
from policies.demo_report import write_report as write_demo_report
from prefsearch.cli import entry
from prefsearch.report.page import Report
from prefsearch.run.directory import RunDirectory
from prefsearch.statistics.seed_intervals import interval_over_seeds
from rewardmodel.synthetic.human import SimulatedHuman
from search.evaluation.figures import Curve, gain_curves, overoptimization
from search.viewer.page import NamedView, render_html
from search.viewer.view import NodeView, arrange

ATTACKS = (
    "</script><script>window.ran=1;alert(1)</script>",
    '<img src=x onerror="window.ran=1">',
    "<svg onload=window.ran=1><foreignObject><iframe src=http://a.example/></iframe>",
    "</style></title></textarea></noscript></template>",
    '" onmouseover="window.ran=1" autofocus onfocus="window.ran=1" x="',
    "' onclick='window.ran=1' x='",
    '<a href="javascript:window.ran=1">link</a>',
    '<meta http-equiv="refresh" content="0;url=http://b.example/">',
    '<link rel=stylesheet href="http://c.example/x.css"><base href="http://d.example/">',
    "<!-- <script> --> ]]> <![CDATA[ <?xml ?> <!DOCTYPE x>",
    "\u2028 \u2029 \\u003cscript\\u003e ${window.ran=1} `{{7*7}}` &lt;b&gt; &#60;",
    "$\\frac{$ $x$ \\n \\",
)
HOSTILE = " ".join(ATTACKS)
NAME = "<img src=x onerror=window.ran=1> \"'&$x_{"
"""A name of a file or folder: without slashes."""
CONTROLS = "\x00\x1b[31m\ud800\ufffe"
"""What a model may write, and no data may hold."""


def report_page(folder: Path, text: str) -> Path:
    """A report of every kind of part, each made from one text."""
    curves = [
        Curve(f"{label}{text}", [10.0, 100.0], [0.0, 1.0], [-0.2, 0.8], [0.2, 1.2], panel + text)
        for label in ("a", "b")
        for panel in ("gold", "proxy")
    ]
    words = {"x_label": text, "y_label": text, "title": text}
    gains = gain_curves(curves, folder / "gains", **words)
    bend = overoptimization(curves, folder / "bend", title=text, y_label=text)
    page = Report(text, subtitle=text).section(text, text).prose(text)
    for picture in (gains, bend):
        page.figure(picture[1], alt=text, caption=text)
    page.table([{text: text, "n": 1}], caption=text)
    page.table([{"k": text}], {"k": text}, caption=text)
    page.examples(text, [(text, text, {text: text})])
    page.preformatted(text, summary=text)
    page.link("file.html", text)
    page.settings(text, {text: text, "nested": {text: [text, {text: text}]}}, opened=True)
    return page.write(folder / "report.html")


def tree_page(folder: Path, text: str) -> Path:
    """A tree page, its nodes, titles and names made from one text."""
    nodes = [
        NodeView(
            node=number, parent=number - 1, depth=0, action=None if number == 0 else 0, text=text,
            visits=3 - number, value=0.5, raw_value=0.5, qvalue=None, prior=0.5, reward=0.0,
            discount=1.0, terminal=False, hidden=0,
        )
        for number in range(3)
    ]  # fmt: skip
    views = [NamedView(text, arrange(nodes)), NamedView(f"2 {text}", arrange(nodes))]
    path = folder / "tree.html"
    page = render_html(views, title=text, subtitle=text)
    path.write_text(page, encoding="utf-8")
    return path


def atari_page(folder: Path, text: str) -> Path:
    """The report of a game's run, whose settings and environment hold one text."""
    run = RunDirectory(folder)
    run.path.mkdir(parents=True, exist_ok=True)
    settings = {"game": text, "seed": 0, "out": text, text: text}
    (run.path / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (run.path / "environment.json").write_text(json.dumps({text: text}), encoding="utf-8")
    counts = {"decisions": 10, "frames": 40, "updates": 5}
    value = asdict(interval_over_seeds([[1.0, 2.0, 4.0]], item="games"))
    returns = {f"{name}_return": value for name in ("search", "sampled", "policy")}
    rows = [
        {"step": "part-0", **counts, "seconds": 1.0, "mean_return": 1.0, "losses": {text: 1.0}},
        {"step": "evaluation-0", **counts, **returns},
    ]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return write_atari_report(run)


def data_pages(folder: Path, text: str) -> list[Path]:
    """The pages of `reward inspect` and `reward evaluate`, of rows made from one text."""
    rows: list[dict[str, Any]] = [
        {
            "prompt": f"{number % 6} {text}",
            "chosen": f"{text} {'long ' * (number % 4)}{number}",
            "rejected": f"{number} {text}",
            "subset": f"{text}{number % 2}",
            text: text,
        }
        for number in range(24)
    ]
    folder.mkdir(parents=True)
    data = folder / f"{NAME}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), data)
    model = folder / f"{NAME}.py"
    model.write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    flags = ["--dataset", str(data)]
    _run("reward", "inspect", *flags, "--out", str(folder / "inspect"))
    named = ["--model", f"python:{model}:score", "--out", str(folder / NAME)]
    _run("reward", "evaluate", *named, *flags)
    return [folder / "inspect" / "data_report.html", folder / NAME / "report.html"]


def gain_pages(folder: Path, text: str, policy: Path) -> list[Path]:
    """The pages of `policy evaluate`, `policy combine` and `tree show`, of prompts of one text."""
    folder.mkdir(parents=True)
    prompts = folder / f"{NAME}.jsonl"
    lines = [json.dumps({"prompt": f"{number} {text[:150]}"}) for number in range(3)]
    prompts.write_text("\n".join(lines), encoding="utf-8")
    model = folder / f"{NAME}.py"
    model.write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    copied = folder / f"{NAME} policy"
    shutil.copytree(policy, copied)
    flags = ["--policy", str(copied), "--dataset", str(prompts), "--max_new_tokens", "8"]
    flags += ["--reward_model", f"python:{model}:score", "--delimiter", text, "--stop", text]
    runs = []
    for seed in ("0", "1"):
        runs.append(folder / f"{NAME}{seed}")
        sizes = ["--methods", "gumbel_muzero", "--budgets", "2", "--pool", "2", "--seed", seed]
        _run("policy", "evaluate", *flags, *sizes, "--out", str(runs[-1]))
    both = folder / f"{NAME} both"
    _run("policy", "combine", "--runs", *map(str, runs), "--out", str(both))
    planned = folder / f"{NAME} planned.jsonl"
    search = ["--method", "gumbel_muzero", "--budget", "2", "--keep_trees", "2"]
    _run("policy", "plan", *flags, *search, "--out", str(planned))
    shown = planned.with_name(f"{planned.name}.html")
    _run("tree", "show", str(planned))
    return [*(run / "report.html" for run in (*runs, both)), shown]


def demo_page(folder: Path, text: str, demo: Path) -> Path:
    """The page of a demo whose responses and trees hold one text."""
    shutil.copytree(demo, folder)
    for path in (folder / "data").glob("*.json"):
        kept = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(_replaced(kept, text)), encoding="utf-8")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    write_demo_report(RunDirectory(folder), {**config, text: text}, SimulatedHuman())
    return folder / "report.html"


def _replaced(value: Any, text: str) -> Any:
    """JSON whose responses and texts of nodes are a text; prompts are left."""
    if isinstance(value, dict):
        return {
            key: [[text] * len(row) if isinstance(row, list) else text for row in held]
            if key in ("texts", "responses") and isinstance(held, list)
            else text
            if key == "text"
            else _replaced(held, text)
            for key, held in value.items()
        }
    return [_replaced(item, text) for item in value] if isinstance(value, list) else value


def _run(*words: str) -> None:
    code = entry.main(list(words))
    assert code == 0, words

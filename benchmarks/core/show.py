"""Tables and the picture of the planning-core benchmark."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from rich.table import Table

from benchmarks.core.grid import ALGORITHMS, Cell
from benchmarks.core.report import NAMES, OURS, PEERS, ratios
from benchmarks.harness.documents_numbers import digits
from benchmarks.harness.results import table
from benchmarks.harness.worker import Json
from prefsearch.report.plotting import FAINT, PALETTE, open_canvas


def cell_line(row: Json) -> str:
    """One cell in one line, for progress."""
    parts = [f"{Cell.of(row).name:<24}"]
    for side, measured in row["sides"].items():
        if "median" in measured:
            parts.append(f"{side} {_number(measured['median'])} ms")
        else:
            parts.append(f"{side} skipped ({measured['skipped'][:60]})")
    parts += [f"x{values['of_medians']:.2f} {peer}" for peer, values in ratios(row).items()]
    return "  ".join(parts)


def cells_table(rows: Sequence[Json]) -> Table:
    """All cells: times, ratios, time above the model's, memory."""
    columns = ["alg", "B", "A", "S", *(f"{side} ms" for side in NAMES)]
    columns += [*(f"x {peer}" for peer in PEERS), "us/sim/tree", "above model\nours / mctx"]
    lines = []
    for row in rows:
        sides, factors = row["sides"], ratios(row)
        ours = sides.get(OURS, {})
        lines.append(
            [
                row["algorithm"],
                *(str(row[k]) for k in ("batch", "actions", "simulations")),
                *(_times(sides.get(side)) for side in NAMES),
                *(_factor(factors.get(peer)) for peer in PEERS),
                _number(ours.get("microseconds_per_simulation_and_tree")),
                " / ".join(_number(sides.get(s, {}).get("above_model")) for s in (OURS, "mctx")),
                " / ".join(_megabytes(sides.get(s, {}).get("megabytes")) for s in NAMES),
                "–" if row.get("agreement") is None else f"{row['agreement']:.0%}",
            ]
        )
    title = "Milliseconds a search: median [min, max] over rounds"
    return table(title, [*columns, "MB ours /\nmctx / LZ", "agree"], lines)


def closing_tables(results: Json) -> list[Table]:
    """Losing cells and skipped cells."""
    lost = [
        [
            loss["cell"],
            loss["peer"],
            f"{loss['of_medians']:.2f} [{loss['low']:.2f}, {loss['high']:.2f}]",
            f"{loss['of_minima']:.2f}",
            "yes" if loss["decided"] else "no",
        ]
        for loss in results["losses"]
    ]
    skipped = [[skip["cell"], skip["side"], skip["reason"]] for skip in results["skipped"]]
    return [
        table(
            f"Losing cells: {len(lost)}",
            ("cell", "peer", "ratio of medians", "of minima", "decided"),
            lost,
        ),
        table(f"Skipped: {len(skipped)}", ("cell", "side", "reason"), skipped),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else digits(value)


def _megabytes(value: float | None) -> str:
    """A peak; below 1 MB it is within the system's granularity."""
    return "–" if value is None else "<1" if value < 1 else _number(value)


def _times(measured: Json | None) -> str:
    if measured is None:
        return "–"
    if "median" not in measured:
        return "skipped"
    low, high = _number(measured["min"]), _number(measured["max"])
    return f"{_number(measured['median'])} [{low}, {high}]"


def _factor(values: Mapping[str, float] | None) -> str:
    if values is None:
        return "–"
    return f"{values['of_medians']:.2f} [{values['low']:.2f}, {values['high']:.2f}]"


def draw(rows: Sequence[Json], path: Path, *, actions: int) -> bool:
    """Draws time over simulations: a row for each algorithm, a column for each batch size.

    Points are medians with the range over rounds; dotted lines are the model alone.

    Returns:
        False, drawing nothing, where no cell has so many actions.
    """
    rows = [row for row in rows if row["actions"] == actions and row["sides"]]
    if not rows:
        return False
    algorithms = [a for a in ALGORITHMS if any(r["algorithm"] == a for r in rows)]
    batches = sorted({row["batch"] for row in rows})
    budgets = sorted({row["simulations"] for row in rows})
    width, height = 1.2 + 2.9 * max(len(batches), 2), 1.5 + 2.8 * len(algorithms)
    with open_canvas(width, height) as (figure, save):
        grid = figure.subplots(
            len(algorithms), len(batches), sharex=True, sharey="col", squeeze=False
        )
        for line, algorithm in zip(grid, algorithms, strict=True):
            for axis, batch in zip(line, batches, strict=True):
                panel = [r for r in rows if (r["algorithm"], r["batch"]) == (algorithm, batch)]
                _draw_panel(axis, sorted(panel, key=lambda row: row["simulations"]))
                axis.set_xticks(budgets, [str(budget) for budget in budgets])
                axis.minorticks_off()
                axis.yaxis.set_major_formatter("{x:g}")
                axis.set_title(f"{algorithm}, {batch} tree{'s' if batch > 1 else ''}", fontsize=11)
            line[0].set_ylabel("ms a search")
        for axis in grid[-1]:
            axis.set_xlabel("simulations")
        entries = {
            label: handle
            for axis in grid.flat
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        order = sorted(entries, key=[*NAMES.values(), "model alone"].index)
        noted = "gumbel" in algorithms and NAMES["lightzero"] in entries
        figure.legend(
            [entries[label] for label in order],
            order,
            loc="outside lower center",
            ncols=len(order),
            title="LightZero's gumbel search is not the published algorithm: a speed reference only"
            if noted
            else None,
            title_fontproperties={"size": 9},
        )
        figure.suptitle(
            f"Batched tree search on the CPU, {actions} actions: lower is better", fontsize=13
        )
        _, svg = save(path)
        svg.unlink()  # the documents show the PNG
    return True


def _draw_panel(axis: Axes, rows: Sequence[Json]) -> None:
    """Draws one algorithm and batch size, rows by simulations."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    for rank, (side, label) in enumerate(NAMES.items()):
        done = [
            (row["simulations"], row["sides"][side])
            for row in rows
            if "median" in row["sides"].get(side, {})
        ]
        if not done:
            continue
        x = [simulations for simulations, _ in done]
        look: Json = {"color": PALETTE[rank], "zorder": 4 - rank}

        def values(key: str, done: Sequence[tuple[int, Json]] = done) -> list[float]:
            return [measured[key] for _, measured in done]

        axis.fill_between(x, values("min"), values("max"), alpha=0.18, linewidth=0, **look)
        axis.plot(x, values("median"), marker="os^"[rank], markersize=5, label=label, **look)
        axis.plot(x, values("model_median"), ":", linewidth=1.1, **look)
    axis.plot([], [], ":", color=FAINT, linewidth=1.1, label="model alone")


def print_report(results: Json, print_one: Callable[[object], None]) -> None:
    """Prints all tables."""
    print_one(cells_table(results["cells"]))
    for one in closing_tables(results):
        print_one(one)

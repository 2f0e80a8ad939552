"""Figures are written whole, the same each time, and refuse what they cannot draw honestly."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefsearch.statistics.best_of_n import best_of_n_kl
from prefsearch.storage.errors import StorageError
from search.evaluation.figures import Curve, gain_curves, overoptimization
from search.evaluation.scaling import fit_best_of_n

KL = np.array([best_of_n_kl(n) for n in (1, 2, 4, 16, 64)])


def curve(label: str, panel: str, cost: Any = (10.0, 100.0, 1000.0)) -> Curve:
    estimate = np.log1p(np.asarray(cost)) + len(label)
    return Curve(label, cost, estimate, estimate - 0.2, estimate + 0.1, panel)


def draw_all(folder: Path) -> list[Path]:
    gains = [curve(label, panel) for panel in ("gold", "proxy") for label in ("beam", "search")]
    options = {"x_label": "tokens", "y_label": "score", "title": "a $ title"}
    over = [curve(label, panel, KL) for panel in ("few", "many") for label in ("gold", "proxy")]
    fits = {("few", "gold"): fit_best_of_n(KL, np.sqrt(KL) * (1 - np.sqrt(KL)))}
    return [
        *gain_curves(gains, folder / "gain.v2.png", **options),
        *overoptimization(over, folder / "over.svg", title="over", fits=fits),
    ]


def test_every_figure_is_written_as_png_and_svg_and_is_the_same_again(tmp_path: Path) -> None:
    first, second = draw_all(tmp_path / "first"), draw_all(tmp_path / "second")
    names = ["gain.v2.png", "gain.v2.svg", "over.png", "over.svg"]
    assert [p.name for p in first] == names
    assert sorted(p.name for p in (tmp_path / "first").iterdir()) == sorted(names)
    for one, other in zip(first, second, strict=True):
        content = one.read_bytes()
        assert content == other.read_bytes()
        assert content.startswith(b"\x89PNG" if one.suffix == ".png" else b"<?xml")
        assert not re.search(rb"<dc:date>|Software|matplotlib\.org", content)


def test_drawing_leaves_matplotlib_as_it_was_and_imports_it_late(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 3.0, "svg.hashsalt": "other"}):
        before = dict(matplotlib.rcParams)
        draw_all(tmp_path)
        assert dict(matplotlib.rcParams) == before
    program = "import search.evaluation.figures, sys; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


def test_gain_curves_share_the_cost_axis_and_keep_colors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = capture_figures(monkeypatch)
    series = [curve("a", "gold"), curve("b", "gold", [5.0, 50.0]), curve("b", "proxy", [20.0, 30])]
    gain_curves(series, tmp_path / "gain", x_label="tokens", y_label="score", title="t")
    gold, proxy = figures[0].axes
    assert gold.get_xscale() == "log"
    assert gold.get_xlim() == proxy.get_xlim()
    assert gold.get_xlim()[0] < 5
    assert [axis.get_title() for axis in (gold, proxy)] == ["gold", "proxy"]
    colors = {(a.get_title(), line.get_label()): line.get_color()
               for a in (gold, proxy) for line in a.lines}  # fmt: skip
    assert colors["gold", "b"] == colors["proxy", "b"] != colors["gold", "a"]
    assert [t.get_text() for t in figures[0].legends[0].get_texts()] == ["a", "b"]
    band = gold.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(np.min(series[0].low))
    assert band[:, 1].max() == pytest.approx(np.max(series[0].high))


def test_overoptimization_draws_against_distance_and_marks_n(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = capture_figures(monkeypatch)
    fit = fit_best_of_n(KL, 1 + np.sqrt(KL) * (1 - np.sqrt(KL)))
    overoptimization(
        [curve("gold", "few", KL), curve("gold", "many", KL)],
        tmp_path / "over",
        title="t",
        fits={("many", "gold"): fit},
    )
    few, many = (axis for axis in figures[0].axes if axis.get_title())
    np.testing.assert_allclose(few.lines[0].get_xdata(), np.sqrt(KL))
    fitted = [line for line in many.lines if line.get_label() == "fitted law"]
    assert len(fitted) == 1
    np.testing.assert_allclose(fitted[0].get_ydata(), fit.predict(fitted[0].get_xdata() ** 2))
    assert max(fitted[0].get_xdata()) == pytest.approx(np.sqrt(KL[-1]))  # not extrapolated
    assert not [line for line in few.lines if line.get_label() == "fitted law"]
    top = few.child_axes[0]
    marks = dict(zip((t.get_text() for t in top.get_xticklabels()), top.get_xticks(), strict=True))
    assert marks["16"] == pytest.approx(np.sqrt(best_of_n_kl(16)))
    assert few.get_ylim() == many.get_ylim()


def test_curves_refuse_what_would_mislead(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bounds, not half-widths"):
        Curve("a", [1.0, 2.0], [5.0, 5.0], [0.1, 0.1], [0.2, 0.2], "gold")
    with pytest.raises(ValueError, match="one shape"):
        Curve("a", [1.0, 2.0], [5.0], [4.0], [6.0], "gold")
    with pytest.raises(ValueError, match="not finite"):
        Curve("a", [1.0], [np.nan], [0.0], [1.0], "gold")
    options: dict[str, Any] = {"x_label": "x", "y_label": "y", "title": "t"}
    with pytest.raises(ValueError, match="positive costs"):
        gain_curves([curve("a", "gold", [0.0, 1.0])], tmp_path / "a", **options)
    with pytest.raises(ValueError, match="at least one"):
        gain_curves([], tmp_path / "a", **options)
    with pytest.raises(ValueError, match="required >= 0"):
        overoptimization([Curve("a", [-1], [0], [0], [0], "p")], tmp_path / "a", title="t")
    with pytest.raises(ValueError, match="at least one"):
        overoptimization([], tmp_path / "a", title="t")
    assert not list(tmp_path.iterdir())


def test_curve_sorts_its_points_by_cost() -> None:
    unsorted = Curve("a", [3.0, 1.0], [30.0, 10.0], [29.0, 9.0], [31.0, 11.0], "gold")
    assert [a.tolist() for a in unsorted.arrays] == [[1, 3], [10, 30], [9, 29], [11, 31]]


def test_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        overoptimization([curve("a", "few", KL)], tmp_path / "file" / "over", title="t")


def capture_figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect each matplotlib figure as it is made."""
    import matplotlib.figure

    figures: list[Any] = []

    class Captured(matplotlib.figure.Figure):
        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            figures.append(self)

    monkeypatch.setattr(matplotlib.figure, "Figure", Captured)
    return figures


def test_text_that_xml_cannot_hold_is_drawn_and_reported(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    from prefsearch.report.page import Report

    wild = "bell\x03\x1b and \ud800 & <b> $x"
    _, svg = overoptimization([curve(wild, wild, KL)], tmp_path / "over", title=wild, y_label=wild)
    ElementTree.parse(svg)
    page = Report("A page").examples(wild, [(wild, wild, {})]).figure(svg, alt="t", caption=wild)
    page.preformatted(wild, summary=wild).write(tmp_path / "page.html")
    assert "\x03" not in (tmp_path / "page.html").read_text()

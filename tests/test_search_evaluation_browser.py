"""A real browser shows the report whole and asks no host for anything."""

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prefsearch.report.page import Report
from prefsearch.statistics.intervals import Interval
from search.evaluation.figures import Curve, gain_curves
from tests.browser import CHROMIUM, QUIET

FLAGS = (
    *QUIET,
    "--window-size=1000,2400",
    "--force-device-scale-factor=2",  # thin lines keep their color
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH"),
]


def browse(page: Path, folder: Path, *options: str) -> tuple[str, set[str]]:
    """Open a page in a fresh profile; return the DOM and the hosts that the page asked for.

    The browser asks a few hosts on its own account whatever the flags; such requests carry no
    origin as their initiator, while those of a page opened from a file carry "null" or "file://".
    """
    assert CHROMIUM is not None
    log = folder / "net.json"
    finished = subprocess.run(
        [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    network = json.loads(log.read_text())
    started = network["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    requests = [
        event["params"]
        for event in network["events"]
        if event["type"] == started and "url" in event.get("params", {})
    ]
    by_page = [r["url"] for r in requests if r["initiator"] != "not an origin"]
    return finished.stdout, {urlsplit(url).netloc for url in by_page} - {""}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    curves = [
        Curve(label, [10.0, 100.0], [0.0, 1.0], [-0.2, 0.8], [0.2, 1.2], panel)
        for label in ("best-of-n", "search")
        for panel in ("gold", "proxy")
    ]
    gain = gain_curves(curves, tmp_path / "gain", x_label="tokens", y_label="score", title="Gain")
    return (
        Report("A report")
        .section("Gain", "Search gains.")
        .figure(gain[1], alt="Search gains.", caption="Gain against tokens.")
        .table([{"planner": "search", "gold": Interval(1.0, 0.8, 1.2)}], caption="Gold gain.")
        .examples("Say thanks", [("one", '<img src="http://page.example/a.png">', {})])
        .figure(gain[1], alt="The same.", caption="Once more.")
        .preformatted("Say thanks\n└─ Thank you", summary="The tree")
        .write(tmp_path / "report.html")
    )


def test_report_renders_its_figures_and_asks_no_host(report: Path, tmp_path: Path) -> None:
    dom, hosts = browse(report, tmp_path, "--dump-dom")
    assert hosts == set()
    assert dom.count("<svg") == 2
    assert len(re.findall(r"<use [^>]*href=\"#figure[12]-", dom)) > 20
    assert "<details" in dom
    assert dom.rstrip().endswith("</html>")


def test_the_report_of_the_demo_shows_its_figures_and_asks_no_host(
    demo_run: Path, tmp_path: Path
) -> None:
    dom, hosts = browse(demo_run / "report.html", tmp_path, "--dump-dom")
    assert hosts == set()
    assert dom.count("<svg") == 2, "gains, over-optimization"
    for heading in ("What was gained", "Examples", "A search tree", "How it was made"):
        assert heading in dom


def test_screenshot_shows_the_colors_of_the_curves(report: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    shot = tmp_path / "shot.png"
    browse(report, tmp_path, f"--screenshot={shot}")
    pixels = (imread(shot)[..., :3] * 255).round().astype(int)  # [height, width, 3]
    for name, color in {"blue": (0, 0x72, 0xB2), "orange": (0xD5, 0x5E, 0)}.items():
        count = int((abs(pixels - color).sum(axis=-1) < 12).sum())
        assert count > 100, f"{name}: {count} pixels"


def test_the_check_sees_a_page_that_asks_a_host(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<img src="http://page.example/a.png"><script src="https://code.example/b.js"></script>'
        '<iframe src="http://frame.example/"></iframe>'
        '<link rel="stylesheet" href="https://style.example/a.css">'
    )
    _, hosts = browse(page, tmp_path, "--dump-dom")
    assert hosts == {"page.example", "code.example", "frame.example", "style.example"}

"""A wheel, installed elsewhere, works from an empty folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fakes import MICRO_DEMO

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.network  # the build backend comes from the package registry
def test_a_wheel_runs_the_demo_from_an_empty_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    build = [
        *pip,
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path / "dist"),
        str(ROOT),
    ]
    subprocess.run(build, check=True, timeout=600)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    carried = zipfile.ZipFile(wheel).namelist()
    data = {f"search/viewer/page.{kind}" for kind in ("html", "css", "js")}
    assert {"atari_bridge/reference/atari_100k.json", *data} <= set(carried)
    site, empty = tmp_path / "site", tmp_path / "empty"
    install = [*pip, "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, timeout=600)
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    sizes = [word for name, value in MICRO_DEMO.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-P", str(site / "bin" / "prefsearch"), "demo"]
    subprocess.run(
        [*command, "--config", "demo", *sizes], cwd=empty, env=environment, check=True, timeout=600
    )
    assert (empty / "runs" / "demo" / "report.html").is_file()
    where = [sys.executable, "-P", "-c", "import search; print(search.__file__)"]
    found = subprocess.run(where, cwd=empty, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(site)), "the checkout was imported, not the wheel"

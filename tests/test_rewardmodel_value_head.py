from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.models.token_value import TokenValueModel
from rewardmodel.pretrained.tokenization import TextEncoder
from tests.fakes import Words
from tests.reward_folders import CLOSE, PROMPT, TEXTS, save_classifier


def test_a_value_is_the_score_of_the_text_up_to_its_token(
    policy_folder: Path, tmp_path: Path
) -> None:
    folder = save_classifier(policy_folder, tmp_path / "m", seed=0, reward_shift=1.5)
    model, reward_model = (
        kind.load(str(folder)) for kind in (TokenValueModel, SequenceRewardModel)
    )
    prompts = [PROMPT, "How?\n", PROMPT, PROMPT]
    values = model.token_values(prompts, TEXTS)
    for row, prompt, text in zip(values, prompts, TEXTS, strict=True):
        first, second = model.encoder.pair(prompt, text)
        expected = []
        for count in range(1, len(second) + 1):
            ids = torch.tensor([first + second[:count]])
            with torch.inference_mode():
                hidden = model.model.model(input_ids=ids).last_hidden_state[0, -1]
                expected.append(model.model.score(hidden)[0] - 1.5)
        torch.testing.assert_close(row, torch.stack(expected), **CLOSE)
    scores = reward_model.score(prompts, TEXTS)
    torch.testing.assert_close(model.score(prompts, TEXTS), scores, **CLOSE)
    unfinished = model.token_values(prompts, TEXTS, finished=False)
    assert [len(row) + 1 for row in unfinished] == [len(row) for row in values]


def test_models_without_a_value_at_every_token_are_refused(
    policy_folder: Path, tmp_path: Path
) -> None:
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, vocab_size=50, num_labels=1)  # fmt: skip
    encoder = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ValueError, match="does not score by one layer on its last token"):
        TokenValueModel(encoder, TextEncoder(Words(), 100))
    folder = save_classifier(policy_folder, tmp_path / "m", seed=0)
    model = TokenValueModel.load(str(folder))
    with torch.no_grad():
        model.model.score.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="scored row 0 as nan"):
        model.token_values([PROMPT], TEXTS[:1])

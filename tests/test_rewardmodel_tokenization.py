import logging
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from policies.generation.language_model import Policy, load_language_model
from rewardmodel.pretrained.compatibility import fit_embeddings
from rewardmodel.pretrained.tokenization import TextEncoder, give_pad_token, load_tokenizer

WORDS = {word: i for i, word in enumerate(["<e>", "<u>", "a", "b", "c", "d", "<p>"])}


def word_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    bare = Tokenizer(models.WordLevel(WORDS, unk_token="<u>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<e>", **special)


def test_a_pair_is_prompt_response_end(policy: Policy) -> None:
    encoder = policy.encoder
    prompt, response = encoder.pair("Write a story.\n", "The bell rang.")
    assert response[-1] == encoder.end_id
    assert encoder.tokenizer.decode(prompt + response[:-1]) == "Write a story.\nThe bell rang."
    assert encoder.pair("Write a story.\n", "The bell", finished=False)[1][-1] != encoder.end_id


def test_the_prompt_gives_way_from_its_left_and_the_end_stays() -> None:
    encoder = TextEncoder(word_tokenizer(pad_token="<p>"), max_length=5)
    assert encoder.pair("a b c d", "c d") == ([4, 5], [4, 5, 0])
    prompt, response = encoder.pair("a", "a b c d a b c d")
    assert len(prompt) + len(response) <= 5
    assert response[-1] == 0


def test_a_tokenizer_without_pad_token_gets_one_that_is_not_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for tokenizer in (word_tokenizer(), word_tokenizer(pad_token="<e>")):
        with caplog.at_level(logging.WARNING):
            give_pad_token(tokenizer)
        assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert "no pad token of its own" in caplog.text
    kept = word_tokenizer(pad_token="<p>")
    give_pad_token(kept)
    assert kept.pad_token == "<p>"


def test_a_spare_special_token_is_taken_before_the_vocabulary_grows() -> None:
    tokenizer = word_tokenizer(unk_token="<u>")
    give_pad_token(tokenizer)
    assert tokenizer.pad_token == "<u>"
    assert len(tokenizer) == len(WORDS)


def test_embeddings_grow_with_an_added_pad_token_and_refuse_a_foreign_tokenizer(
    policy_folder: Path,
) -> None:
    tokenizer = load_tokenizer(str(policy_folder))
    model = load_language_model(str(policy_folder))
    tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    fit_embeddings(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    small = load_language_model(str(policy_folder))
    small.resize_token_embeddings(10)
    with pytest.raises(ValueError, match=r"tokenizer has \d+ tokens and the model 10 embeddings"):
        fit_embeddings(small, tokenizer)


def test_a_model_folder_without_a_tokenizer_is_named(tmp_path: Path, policy: Policy) -> None:
    policy.model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no tokenizer .*it holds config.json"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_without_end_token_is_refused(tmp_path: Path) -> None:
    bare = Tokenizer(models.WordLevel(WORDS, unk_token="<u>"))
    PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<p>").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no end-of-sequence token"):
        load_tokenizer(str(tmp_path))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no causal language model could be loaded"):
        load_language_model(str(tmp_path))

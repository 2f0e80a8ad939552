import logging

import pytest
import torch

from rewardmodel.prefix_cache.rerun import RerunTree
from rewardmodel.prefix_cache.tree import PrefixTree
from tests.prefix_growth import RERUNNING, SHARING, Growth, language_model

ATOL = 2e-4  # chunks of linear attention add in another order than its steps


@pytest.mark.parametrize("family", RERUNNING)
def test_models_that_cannot_share_get_the_same_states_and_one_warning(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="rewardmodel"):
        growth = Growth(language_model(RERUNNING[family]))
        assert isinstance(growth.tree, RerunTree)
        assert growth.at_random() < ATOL
    warnings = [r.getMessage() for r in caplog.records if r.name.startswith("rewardmodel")]
    assert len(warnings) == 1
    assert "cannot share a cache between branches" in warnings[0]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_rerun_says_the_same_as_a_tree(family: str) -> None:
    growth = Growth(language_model(SHARING[family]))
    trees = [PrefixTree(growth.backbone), RerunTree(growth.backbone)]
    found = []
    for tree in trees:
        roots = tree.add_prompts([[5, 6, 7], [8, 9]])
        fed, states = tree.feed([roots[0], ~0, roots[1]], [[1, 2], [3], [4, 5]])
        tree.keep([*fed, roots[1]])
        (more,), _ = tree.feed([tree.ancestor(fed[1], 4)], [[6]])
        last = tree.read([more, fed[2]], [[1], [2, 3]], rows=1)
        found.append(torch.cat([states.hidden, tree.hidden([more, roots[1]]), last.hidden]))
    torch.testing.assert_close(found[0], found[1], atol=5e-5, rtol=0)


def test_all_tokens_of_reruns_are_counted() -> None:
    for family in ("mamba", "qwen3_next"):
        growth = Growth(language_model(RERUNNING[family]))
        growth.compare = lambda nodes: None  # type: ignore[method-assign]
        growth._hold = lambda *state: None  # type: ignore[method-assign]
        seen: list[int] = []
        growth.model.base_model.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(kwargs["input_ids"].numel()),
            with_kwargs=True,
        )
        growth.at_random()
        tree = growth.tree
        branches = tree.branches(growth.add_prompts(4, 4), room=2)
        branches.keep([1])  # the other goes on in the batch of the same length
        branches.feed(torch.tensor([5]), live=[0])
        assert sum(tree.forward_tokens.values()) + tree.padding_tokens == sum(seen)
        assert tree.bytes_per_token() == 0

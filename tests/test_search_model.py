"""Every way a model can break the contract, and the message it gets."""

import re
from dataclasses import replace

import pytest
import torch

from search import (
    BeamPlanner,
    BestOfNPlanner,
    GumbelMuZeroPlanner,
    MuZeroPlanner,
)
from tests.search_reference import TableModel, random_tables

PLANNERS = [MuZeroPlanner(3), GumbelMuZeroPlanner(3), BestOfNPlanner(3), BeamPlanner(3)]
NAN = float("nan")


class BrokenModel(TableModel):
    """A table model whose outputs are changed by `break_root` and `break_step`."""

    def __init__(self, break_root=None, break_step=None):
        """Takes functions from output to changed fields."""
        tables = random_tables(1)
        super().__init__(*(getattr(tables, name) for name in list(vars(tables))[:6]))
        self.break_root, self.break_step = break_root, break_step

    def root(self, observation, *, generator=None):
        """The root output with changed fields."""
        output = super().root(observation)
        return replace(output, **self.break_root(output)) if self.break_root else output

    def step(self, embedding, action, *, generator=None):
        """The step output with changed fields."""
        output = super().step(embedding, action)
        return replace(output, **self.break_step(output)) if self.break_step else output


def with_row(tensor, row, value):
    """A copy with one row overwritten."""
    tensor = tensor.clone()
    tensor[row] = value
    return tensor


SHARED = {
    "nan_logits": (
        lambda o: {"prior_logits": with_row(o.prior_logits, 2, NAN)},
        r"prior_logits, row 2: found \[nan.*required finite values where valid_actions is True",
    ),
    "infinite_value": (
        lambda o: {"value": with_row(o.value, 1, float("inf"))},
        r"value, row 1: found inf; required finite values",
    ),
    "value_of_two_dimensions": (
        lambda o: {"value": o.value[:, None]},
        r"value: found shape \[\d+, 1\]; required shape \[B\].*squeeze",
    ),
    "logits_of_too_many_actions": (
        lambda o: {"prior_logits": torch.cat([o.prior_logits] * 2, dim=1)},
        r"prior_logits: found shape \[\d+, 10\]; required shape \[\d+, 5\]",
    ),
    "integer_value": (
        lambda o: {"value": o.value.long()},
        r"value: found dtype torch.int64; required a floating-point dtype. Convert with .float",
    ),
    "mask_of_floats": (
        lambda o: {"valid_actions": o.valid_actions.float()},
        r"valid_actions: found dtype torch.float32; required dtype torch.bool.*invalid actions",
    ),
}
ROOT = {
    "no_valid_action": (
        lambda o: {"valid_actions": with_row(o.valid_actions, 3, False)},
        r"valid_actions, row 3: found 0 of 5 actions valid; required at least one.*drop such rows",
    ),
    "embedding_without_batch": (
        lambda o: {"embedding": {**o.embedding, "extra": torch.zeros(7)}},
        r'embedding\["extra"\]: found shape \[7\].*required shape \[4, ...\]',
    ),
}
STEP = {
    "nan_reward": (
        lambda o: {"reward": with_row(o.reward, 0, NAN)},
        r"reward, row 0: found nan; required finite values",
    ),
    "nan_discount": (
        lambda o: {"discount": with_row(o.discount, 0, NAN)},
        r"discount, row 0: found nan; required finite values",
    ),
    "scalar_discount": (
        lambda o: {"discount": torch.tensor(0.9)},
        r"discount: found shape \[\]; required shape \[\d+\]",
    ),
    "missing_leaf": (
        lambda o: {"embedding": {"state": o.embedding["state"]}},
        r"embedding: found leaves \['state'\]; required the root's leaves \['state', 'table', 't",
    ),
    "leaf_of_other_dtype": (
        lambda o: {"embedding": {**o.embedding, "trace": o.embedding["trace"].float()}},
        r'embedding\["trace"\]: found shape .* dtype torch.float32; required .* torch.int32',
    ),
    "too_few_rows": (
        lambda o: {
            name: getattr(o, name)[:1]
            for name in ("prior_logits", "value", "valid_actions", "reward", "discount")
        },
        r"value: found 1 rows; required \d+ rows, one per action stepped",
    ),
}


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
@pytest.mark.parametrize("fault", [*SHARED, *ROOT])
def test_root_fault_is_named(planner, fault):
    """Field, row, found, required, remedy, whichever the planner."""
    change, message = (SHARED | ROOT)[fault]
    with pytest.raises(ValueError, match=f"RootOutput.{message}"):
        planner.plan(BrokenModel(break_root=change), torch.arange(4))


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
@pytest.mark.parametrize("fault", [*SHARED, *STEP])
def test_step_fault_is_named(planner, fault):
    """Field, row, found, required, remedy, whichever the planner."""
    change, message = (SHARED | STEP)[fault]
    # Planners by levels step several edges of an observation, whose row is named.
    message = re.sub(r"row \d", r"row \\d", message)
    with pytest.raises(ValueError, match=f"StepOutput.{message}"):
        planner.plan(BrokenModel(break_step=change), torch.arange(4))


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
def test_logits_of_invalid_actions_are_ignored(planner):
    """Minus infinity, NaN and a huge number where invalid change nothing."""
    plain = random_tables(3, invalid=0.5)
    outputs = []
    for junk in (0.0, float("-inf"), NAN, 1e30):
        model = replace(
            plain, prior_logits=plain.prior_logits.masked_fill(~plain.valid_actions, junk)
        )
        generator = torch.Generator().manual_seed(0)
        outputs.append(planner.plan(model, torch.arange(4), generator=generator))
    for output in outputs[1:]:
        assert torch.equal(output.action, outputs[0].action)
        assert torch.equal(output.action_weights, outputs[0].action_weights)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
def test_outputs_can_be_trained_on(planner):
    """Weights and value are ordinary tensors, though planning ran under inference mode."""
    output = planner.plan(random_tables(4), torch.arange(4))
    logits = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, output.action_weights)
    ((logits.sum(dim=-1) * output.value).sum() + loss).backward()
    assert logits.grad is not None
    assert output.tree.node_values.is_inference()

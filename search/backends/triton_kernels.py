# pyright: basic
# (triton types these functions when it compiles them.)
"""The per-tree loops of the search as one Triton kernel: write, back up, walk, one program a tree.

One launch of `advance` does for every tree what happens between two calls of the model. It works on
the public tensors of `search.tree.Tree` in place, since a warp reads the actions of a node in one
coalesced load whatever the layout, and nothing has to be exported at the end. All its results are
in device tensors, and its arguments are numbers known to the host without a synchronization, so a
search is a fixed sequence of launches.

Within a program a number stored by one lane may be loaded by another: `tl.debug_barrier` stands
between a store and later loads of the same address, and between loads and a store over them. A
program is one warp wherever a node's actions fit, where a barrier costs next to nothing.

It needs `triton`, which comes with torch's CUDA builds on Linux; under `TRITON_INTERPRET=1` it runs
on the CPU. It is tested against the same search in torch (`search.mcts`).

Letters: B batch, N node, A action, W leaves a step, M = W * B rows of a step (row `w * B + b`), F
the float of the trees (float32 or float64). Literals take the other operand's type, so a float32
tree is never promoted.
"""

from typing import Any, NamedTuple

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from search.backends import rules

PUCT = tl.constexpr(rules.PUCT)
EFFICIENT = tl.constexpr(rules.EFFICIENT)
HALVING = tl.constexpr(rules.HALVING)
MIN_MAX = tl.constexpr(rules.MIN_MAX)
SIBLINGS = tl.constexpr(rules.SIBLINGS)

FIELDS = ("prior_logits", "value", "reward", "discount", "valid_actions", "score")
"""What can be wrong with a node; a fault is `FIELDS_BASE * column + index`, -1 where there is none.
`valid_actions` (none at a root) is the host's to find; `score` is what the search makes of the
others: a return or an action's score that is not finite."""
FIELDS_BASE = 8
_SCORE = tl.constexpr(FIELDS.index("score"))
_FIELDS_BASE = tl.constexpr(FIELDS_BASE)

CHUNK = tl.constexpr(128)
"""Nodes looked at together where a rule reads the whole tree."""


class Trees(NamedTuple):
    """Pointers to the tensors of `search.tree.Tree` (bool as uint8), and two of the kernel's own.

    Inside the kernel they point to the program's own tree: `[N]` and `[N, A]`.

    Attributes:
        pending: `[B, N]` int32, walks of this step through each node.
        priors: `[B, N, A]` F, probabilities; -1 where invalid.
    """

    node_visits: Any
    raw_values: Any
    node_values: Any
    parents: Any
    action_from_parent: Any
    terminal: Any
    pending: Any
    children_index: Any
    children_prior_logits: Any
    children_visits: Any
    children_rewards: Any
    children_discounts: Any
    children_values: Any
    valid_actions: Any
    priors: Any


class Outputs(NamedTuple):
    """Pointers to the model's outputs, `[M, A]` and `[M]`, of any float; `valid_actions` uint8."""

    prior_logits: Any
    value: Any
    valid_actions: Any
    reward: Any
    discount: Any


class Halving(NamedTuple):
    """Pointers to Sequential Halving's tensors; anything where the rule is another.

    Attributes:
        gumbel: `[B, A]` F.
        kept_visits: `[B, A]` int64.
        schedule: `[B, S]` int64.
    """

    gumbel: Any
    kept_visits: Any
    schedule: Any


class Numbers(NamedTuple):
    """The numbers of the rules (F), in the order in which they lie in memory.

    Attributes:
        init: PUCT's c1.
        base: PUCT's c2.
        low: Least Q-value, where known beforehand.
        high: Greatest Q-value, likewise.
        epsilon: Least denominator of a Q-transform.
        scale: c_scale.
        offset: c_visit.
        delta: EfficientZero's least denominator.
        lowest: Most negative finite F.
        tiny: Least positive normal F.
    """

    init: Any
    base: Any
    low: Any
    high: Any
    epsilon: Any
    scale: Any
    offset: Any
    delta: Any
    lowest: Any
    tiny: Any


_NUMBERS_OF_STEP = (
    "num_trees",
    "num_nodes",
    "num_actions",
    "num_decisions",
    "max_depth",
    "schedule_length",
    "previous",
    "first",
    "width",
)


# Not specialized: a number that happens to be 1 or a multiple of 16 would compile all again.
@triton.jit(do_not_specialize=_NUMBERS_OF_STEP)
def advance(
    trees,
    outputs,
    halving,
    numbers,
    faults,
    leaves,
    gather,
    actions,
    num_trees,
    num_nodes,
    num_actions,
    num_decisions,
    max_depth,
    schedule_length,
    previous,
    first,
    width,
    ROOT_RULE: tl.constexpr,
    TRANSFORM: tl.constexpr,
    RESCALE: tl.constexpr,
    USE_MIXED: tl.constexpr,
    HAS_OUTCOMES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes and backs up the last step's nodes, then walks to the next leaves.

    Program b works on tree b. `numbers` points to `Numbers`, `faults` to `[B]` int64 and `leaves`
    to `[W, B]` int64, the columns the walks of the last step ended at. `previous` is the number of
    those walks, 0 at the start; `first` the column of the next leaf (walk w may take column
    `first + w`); `width` the walks to make, 0 to finish. Filled are `gather` and `actions` `[M]`
    int64: where the parents' embeddings lie in a pool `[N, B, ...]` seen as rows, and what to step.
    A walk that ended at a known node repeats the step that led there, and a tree with a fault
    steps its root: the outputs of such a row are never read.

    `ROOT_RULE` to `USE_MIXED` are fields of `search.backends.rules.Rules` (below HALVING the rule
    is IMPROVED, below all others the same); `HAS_OUTCOMES` is whether actions from
    `num_decisions` on are chance outcomes; `BLOCK` is a power of two of at least A.
    """
    # int64, so that offsets of a batch may exceed 2^31; all offsets below are made of these.
    b = tl.program_id(0).to(tl.int64)
    tree = _own_tree(trees, b * num_nodes, num_actions)
    own = Halving(
        halving.gumbel + b * num_actions,
        halving.kept_visits + b * num_actions,
        halving.schedule + b * schedule_length,
    )
    n = _load_numbers(numbers)
    lanes = tl.arange(0, BLOCK)
    fault = tl.load(faults + b)
    if fault < 0:
        for w in range(previous):
            column = (first - previous + w).to(tl.int64)
            row = b + num_trees * w
            if tl.load(leaves + row) == column:
                found = _write_node(tree, outputs, n, column, row, num_actions, lanes)
                fault = tl.where(fault < 0, found, fault)
        tl.debug_barrier()  # nodes are written by lanes, and read by all
        if fault < 0:
            for w in range(previous):
                found = _back_up(tree, tl.load(leaves + b + num_trees * w), num_actions)
                fault = tl.where(fault < 0, found, fault)
            for w in range(width):
                column = (first + w).to(tl.int64)
                row = b + num_trees * w
                leaf, parent, action, found = _walk(
                    tree, own, n, column, max_depth, num_actions, num_decisions, schedule_length,
                    lanes, ROOT_RULE, TRANSFORM, RESCALE, USE_MIXED, HAS_OUTCOMES,
                )  # fmt: skip
                tl.store(leaves + row, leaf)
                tl.store(gather + row, b + num_trees * parent)
                tl.store(actions + row, action)
                fault = tl.where(fault < 0, found, fault)
        tl.store(faults + b, fault)
    if fault >= 0:
        valid = tl.load(tree.valid_actions + lanes, mask=lanes < num_actions, other=0)
        for w in range(width):
            row = b + num_trees * w
            tl.store(gather + row, b)
            tl.store(actions + row, tl.argmax(valid.to(tl.int32), axis=0).to(tl.int64))


@triton.jit
def _own_tree(trees, start, num_actions):
    """The same pointers, moved to the tree whose first node has number `start` in the batch."""
    edge = start * num_actions
    return Trees(
        trees.node_visits + start,
        trees.raw_values + start,
        trees.node_values + start,
        trees.parents + start,
        trees.action_from_parent + start,
        trees.terminal + start,
        trees.pending + start,
        trees.children_index + edge,
        trees.children_prior_logits + edge,
        trees.children_visits + edge,
        trees.children_rewards + edge,
        trees.children_discounts + edge,
        trees.children_values + edge,
        trees.valid_actions + edge,
        trees.priors + edge,
    )


@triton.jit
def _load_numbers(numbers):
    """The numbers of the rules; those a rule does not use are never loaded."""
    return Numbers(
        tl.load(numbers),
        tl.load(numbers + 1),
        tl.load(numbers + 2),
        tl.load(numbers + 3),
        tl.load(numbers + 4),
        tl.load(numbers + 5),
        tl.load(numbers + 6),
        tl.load(numbers + 7),
        tl.load(numbers + 8),
        tl.load(numbers + 9),
    )


@triton.jit
def _write_node(tree, outputs, n, node, row, num_actions, lanes):
    """Writes one row of the outputs as a node; returns the fault found, or -1."""
    kind = tree.node_values.dtype.element_ty
    inside = lanes < num_actions
    fields = row * num_actions + lanes
    edges = node * num_actions + lanes
    offered = tl.load(outputs.valid_actions + fields, mask=inside, other=0)
    valid = offered != 0
    logits = tl.load(outputs.prior_logits + fields, mask=inside, other=0.0).to(kind)
    value = tl.load(outputs.value + row).to(kind)
    reward = tl.load(outputs.reward + row).to(kind)
    discount = tl.load(outputs.discount + row).to(kind)
    masked = tl.where(valid, logits, n.lowest)
    weights = tl.where(valid, tl.exp(masked - tl.max(masked, axis=0)), 0.0)
    priors = tl.where(valid, weights / tl.sum(weights, axis=0), -1.0)
    tl.store(tree.valid_actions + edges, offered, mask=inside)
    tl.store(tree.children_prior_logits + edges, masked, mask=inside)
    tl.store(tree.priors + edges, priors, mask=inside)
    tl.store(tree.raw_values + node, value)
    tl.store(tree.node_values + node, value)
    can_act = tl.max(valid.to(tl.int32), axis=0) > 0
    tl.store(tree.terminal + node, ((discount == 0) | (can_act == 0)).to(tl.uint8))
    edge = tl.load(tree.parents + node) * num_actions + tl.load(tree.action_from_parent + node)
    tl.store(tree.children_rewards + edge, reward)
    tl.store(tree.children_discounts + edge, discount)
    bad = tl.max((valid & (_is_finite(logits) == 0)).to(tl.int32), axis=0) > 0
    field = tl.where(_is_finite(discount), -1, 3)
    field = tl.where(_is_finite(reward), field, 2)
    field = tl.where(_is_finite(value), field, 1)
    field = tl.where(bad, 0, field)
    return tl.where(field < 0, -1, node * _FIELDS_BASE + field)


@triton.jit
def _is_finite(number):
    # NaN compares false.
    return tl.abs(number) < float("inf")


@triton.jit
def _back_up(tree, leaf, num_actions):
    """Averages a leaf's raw value into itself and its ancestors; returns the fault found, or -1."""
    kind = tree.node_values.dtype.element_ty
    node = leaf
    value = tl.load(tree.raw_values + node)
    mean = tl.load(tree.node_values + node)
    pending = tl.load(tree.pending + node)
    observed = (tl.load(tree.node_visits + node) - pending).to(kind)
    # Written so that a value that is the mean already stays what it is.
    mean += (value - mean) / (observed + 1)
    fault = node * 0 - 1
    tl.debug_barrier()  # no lane stores before all have loaded
    tl.store(tree.pending + node, pending - 1)
    tl.store(tree.node_values + node, mean)
    # Each level loads other addresses than those below it stored to.
    while node != 0:
        parent = tl.load(tree.parents + node)
        edge = parent * num_actions + tl.load(tree.action_from_parent + node)
        reward = tl.load(tree.children_rewards + edge)
        discount = tl.load(tree.children_discounts + edge)
        value = reward + discount * value
        pending = tl.load(tree.pending + parent)
        observed = (tl.load(tree.node_visits + parent) - pending).to(kind)
        above = (tl.load(tree.node_values + parent) * observed + value) / (observed + 1)
        tl.debug_barrier()  # as above
        tl.store(tree.pending + parent, pending - 1)
        tl.store(tree.children_values + edge, mean)
        tl.store(tree.node_values + parent, above)
        good = _is_finite(reward + discount * mean) & _is_finite(above)
        fault = tl.where(good, fault, parent * _FIELDS_BASE + _SCORE)
        mean = above
        node = parent
    tl.debug_barrier()  # whatever comes next reads what was stored
    return fault


@triton.jit
def _walk(
    tree, halving, n, column, max_depth, num_actions, num_decisions, schedule_length, lanes,
    ROOT_RULE: tl.constexpr, TRANSFORM: tl.constexpr, RESCALE: tl.constexpr,
    USE_MIXED: tl.constexpr, HAS_OUTCOMES: tl.constexpr,
):  # fmt: skip
    """Walks from the root to a leaf, counting visits.

    Returns the leaf, its parent, the action taken there, and the fault found on the way, or -1. A
    new leaf gets `column`. Until the model has evaluated it, other walks of the same step end
    there, and its value is its parent's.
    """
    low, high = n.low, n.high
    if ROOT_RULE == EFFICIENT:
        low, high = _bounds(tree, column, num_actions)
    node = column * 0
    mean = n.low * 0.0  # EfficientZero's value of unvisited actions
    depth = max_depth * 0
    parent, action, below = node, node, node
    going = depth < max_depth
    fault = node - 1
    while going:
        parent = node
        action, mean, is_good = _select(
            tree, halving, n, node, low, high, mean, num_actions, num_decisions, schedule_length,
            lanes, ROOT_RULE, TRANSFORM, RESCALE, USE_MIXED, HAS_OUTCOMES,
        )  # fmt: skip
        fault = tl.where(is_good, fault, node * _FIELDS_BASE + _SCORE)
        edge = node * num_actions + action
        below = tl.load(tree.children_index + edge)
        ends = tl.load(tree.terminal + below, mask=below >= 0, other=1)
        count = tl.load(tree.node_visits + node)
        pending = tl.load(tree.pending + node)
        visits = tl.load(tree.children_visits + edge)
        tl.debug_barrier()  # no lane stores before all have loaded
        tl.store(tree.node_visits + node, count + 1)
        tl.store(tree.pending + node, pending + 1)
        tl.store(tree.children_visits + edge, visits + 1)
        depth += 1
        node = tl.where(below < 0, column, below)
        going = (ends == 0) & (depth < max_depth)
    if below < 0:
        edge = parent * num_actions + action
        tl.store(tree.children_index + edge, column)
        tl.store(tree.children_discounts + edge, 1.0)
        tl.store(tree.children_values + edge, tl.load(tree.node_values + parent))
        tl.store(tree.parents + column, parent)
        tl.store(tree.action_from_parent + column, action)
        tl.store(tree.terminal + column, 1)
    count = tl.load(tree.node_visits + node)
    pending = tl.load(tree.pending + node)
    tl.debug_barrier()  # as above
    tl.store(tree.node_visits + node, count + 1)
    tl.store(tree.pending + node, pending + 1)
    tl.debug_barrier()  # the next walk of this step reads what was stored
    return node, parent, action, fault


@triton.jit
def _select(
    tree, halving, n, node, low, high, mean, num_actions, num_decisions, schedule_length, lanes,
    ROOT_RULE: tl.constexpr, TRANSFORM: tl.constexpr, RESCALE: tl.constexpr,
    USE_MIXED: tl.constexpr, HAS_OUTCOMES: tl.constexpr,
):  # fmt: skip
    """The action a rule takes at a node (`search.selection`), and EfficientZero's mean there.

    The last thing returned is whether the action was taken for its score: none is NaN, and the
    greatest is finite. Where it is not, the action is some lane and the search ends with a fault.
    """
    inside = lanes < num_actions
    edges = node * num_actions + lanes
    priors = tl.load(tree.priors + edges, mask=inside, other=-1.0)
    visits = tl.load(tree.children_visits + edges, mask=inside, other=0)
    qvalues = _load_qvalues(tree, edges, inside)
    eligible = priors >= 0
    if ROOT_RULE == EFFICIENT:
        mean = _mean_sibling_qvalue(qvalues, visits, node, mean)
        qvalues = tl.where(visits > 0, qvalues, mean)
        scaled = (qvalues - low) / tl.maximum(high - low, n.delta)
        scaled = tl.where(high > low, scaled, qvalues)
        scores = tl.minimum(tl.maximum(scaled, 0.0), 1.0)
        scores = tl.where(scaled == scaled, scores, scaled)  # NaN stays NaN
        scores += _prior_bonus(n, priors, visits, tl.sum(visits, axis=0))
    else:
        decisions = lanes < num_decisions
        scores = _transform(
            tree, n, node, priors, visits, qvalues, decisions, TRANSFORM, RESCALE, USE_MIXED
        )
        if ROOT_RULE == PUCT:
            scores += _prior_bonus(n, priors, visits, tl.load(tree.node_visits + node))
            if HAS_OUTCOMES:
                outcomes = eligible & (decisions == 0)
                is_chance = tl.max(outcomes.to(tl.int32), axis=0) > 0
                # The outcome whose visits lag furthest behind its probability.
                scores = tl.where(is_chance, priors / (visits + 1).to(scores.dtype), scores)
        else:
            logits = tl.load(tree.children_prior_logits + edges, mask=inside, other=n.lowest)
            if node == 0:
                done = visits - tl.load(halving.kept_visits + lanes, mask=inside, other=0)
                number = tl.minimum(tl.sum(done, axis=0), schedule_length - 1)
                considered = tl.load(halving.schedule + number)
                gumbel = tl.load(halving.gumbel + lanes, mask=inside, other=0.0)
                scores = gumbel + (logits - tl.max(logits, axis=0)) + scores
                eligible = eligible & (done == considered)
            else:
                # Logits first come down to at most 0: far from it they have no digits for Q-values.
                scores += logits - tl.max(logits, axis=0)
                scores = _visit_deficit(scores, visits, eligible)
    is_nan = tl.max((eligible & (scores != scores)).to(tl.int32), axis=0) > 0
    scores = tl.where(eligible & (scores == scores), scores, float("-inf"))
    is_good = (is_nan == 0) & _is_finite(tl.max(scores, axis=0))
    best = tl.argmax(scores, axis=0)
    return tl.minimum(best, num_actions - 1).to(tl.int64), mean, is_good


@triton.jit
def _load_qvalues(tree, edges, mask):
    """Reward + discount * child value of edges; 0 where unvisited."""
    reward = tl.load(tree.children_rewards + edges, mask=mask, other=0.0)
    discount = tl.load(tree.children_discounts + edges, mask=mask, other=0.0)
    return reward + discount * tl.load(tree.children_values + edges, mask=mask, other=0.0)


@triton.jit
def _prior_bonus(n, priors, visits, count):
    """PUCT's bonus of each action, given the count that stands for the node's visits."""
    count = count.to(priors.dtype)
    pb_c = n.init + tl.log((count + n.base + 1.0) / n.base)
    return tl.sqrt(count) * pb_c * priors / (visits + 1).to(priors.dtype)


@triton.jit
def _transform(
    tree, n, node, priors, visits, qvalues, decisions,
    TRANSFORM: tl.constexpr, RESCALE: tl.constexpr, USE_MIXED: tl.constexpr,
):  # fmt: skip
    """A node's transformed Q-values (`search.qtransforms`); anything where not a decision."""
    visited = (visits > 0) & decisions
    if TRANSFORM == MIN_MAX:
        scores = (tl.where(visited, qvalues, n.low) - n.low) / (n.high - n.low)
    elif TRANSFORM == SIBLINGS:
        own = tl.load(tree.node_values + node)
        known = tl.where(visited, qvalues, own)
        low = tl.minimum(own, tl.min(known, axis=0))
        high = tl.maximum(own, tl.max(known, axis=0))
        scores = (tl.where(visited, qvalues, low) - low) / tl.maximum(high - low, n.epsilon)
    else:
        unvisited = tl.load(tree.raw_values + node)
        if USE_MIXED:
            # A visited action may have prior 0 in floating point; weights must still sum to one.
            weights = tl.where(visited, tl.maximum(priors, n.tiny), 0.0)
            mass = tl.sum(weights, axis=0)
            weights = weights / tl.where(mass > 0, mass, 1.0)
            # Relative to the raw value: equal values stay equal.
            weighted = tl.sum(weights * tl.where(visited, qvalues - unvisited, 0.0), axis=0)
            count = tl.sum(tl.where(decisions, visits, 0), axis=0).to(priors.dtype)
            unvisited += weighted * (count / (count + 1))
        scores = tl.where(visited, qvalues, unvisited)
        if RESCALE:
            low = tl.min(tl.where(decisions, scores, float("inf")), axis=0)
            high = tl.max(tl.where(decisions, scores, float("-inf")), axis=0)
            scores = (scores - low) / tl.maximum(high - low, n.epsilon)
        most = tl.max(tl.where(decisions, visits, 0), axis=0).to(priors.dtype)
        scores = (n.offset + most) * n.scale * scores
    return scores


@triton.jit
def _visit_deficit(logits, visits, valid):
    """How far each action's share of visits lags behind the softmax of `logits`."""
    top = tl.max(tl.where(valid, logits, float("-inf")), axis=0)
    weights = tl.where(valid, tl.exp(logits - top), 0.0)
    total = (tl.sum(visits, axis=0) + 1).to(logits.dtype)
    return weights / tl.sum(weights, axis=0) - visits.to(logits.dtype) / total


@triton.jit
def _mean_sibling_qvalue(qvalues, visits, node, above):
    """Mean Q-value of the visited actions; below the root with the parent's such mean."""
    total = tl.sum(tl.where(visits > 0, qvalues, 0.0), axis=0)
    count = tl.sum((visits > 0).to(qvalues.dtype), axis=0)
    total = tl.where(node > 0, total + above, total)
    count = tl.where(node > 0, count + 1, count)
    return total / tl.maximum(count, 1.0)


@triton.jit
def _bounds(tree, end, num_actions):
    """Least and greatest Q-value of the edges that lead to columns below `end`."""
    kind = tree.node_values.dtype.element_ty
    low = tl.full((CHUNK,), float("inf"), kind)
    high = tl.full((CHUNK,), float("-inf"), kind)
    for start in range(0, end.to(tl.int32), CHUNK):
        nodes = start + tl.arange(0, CHUNK)
        parents = tl.load(tree.parents + nodes, mask=nodes < end, other=-1)
        used = parents >= 0  # neither the root nor an unused column
        action = tl.load(tree.action_from_parent + nodes, mask=used, other=0)
        qvalues = _load_qvalues(tree, parents * num_actions + action, used)
        low = tl.minimum(low, tl.where(used, qvalues, float("inf")))
        high = tl.maximum(high, tl.where(used, qvalues, float("-inf")))
    return tl.min(low, axis=0), tl.max(high, axis=0)

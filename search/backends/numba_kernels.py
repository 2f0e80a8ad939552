# pyright: basic
# (numba types these functions when it compiles them.)
"""The per-tree loops of the search, compiled for the CPU by numba: select, expand, back up.

One call of `advance` does for every tree of a batch what happens between two calls of the model: it
writes the model's last outputs as nodes, backs their values up, and walks down to the next leaves.
`export` writes the finished trees in the public layout of `search.tree`, and `load` reads subtrees
kept from an earlier search.

What a walk reads of a node lies in one block, the nodes a walk passed are noted so that its way
back waits for nothing, and while one tree is at work the last walk of the next is fetched: a search
of many trees is bound by the latency of memory. The public tensors are written once, at the end.
Below `advance`, arrays are pointers: a numba array is a dozen words to pass, and slicing one
costs two atomic operations on a counter that all threads share. The kernels are tested, number for
number, against the same search in torch (`search.mcts`). They are one file because numba's cache on
disk notices a change in a function's own file only.

Arrays (F is float32 or float64; W leaves a step, D the deepest walk):
    blocks: `[B, N, 10 + 4 * A]` F, a node: the fields named below, then four numbers of each
        action: A priors (-1 where invalid), A Q-values, A visits, A columns of children or -1.
    paths: `[B, W, D + 2]` int32, of each walk its number of nodes, and their columns.
    rows: `[B, W]` int32, the model's row for each walk's leaf, -1 where it is known.
    scratch: `[B, A]` F.
    stored_logits, stored_valid: `[B, N, A]` F and uint8, the public tensors of these names.

Throughout, `at` is where a node's block begins, `b` a tree, and `layout` what `_Layout` says.
"""

import math
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from search.backends.rules import EFFICIENT, HALVING, MIN_MAX, MIXED, PUCT, SIBLINGS

VALUE, COUNT, PENDING, REWARD, DISCOUNT, RAW, END, CHANCE, PARENT, ACTION = range(10)
"""Fields of a node: mean return, visits, walks under way, reward and discount of the edge that
leads here, the model's value, 1 where walks end, 1 where chance outcomes are offered, the column
of the parent and the action taken there (-1 for the root)."""
NODE_FIELDS = 10

ROOT_RULE, RULE, TRANSFORM, RESCALE, USE_MIXED, DECISIONS, MAX_DEPTH = range(7)
"""Fields of `settings` (int64); DECISIONS counts the actions that are not chance outcomes."""

LOW, HIGH, EPSILON, SCALE, OFFSET, DELTA, LOWEST, TINY, LEAST_PRIOR = range(9)
"""Fields of `numbers` (F): bounds, least denominator, c_scale, c_visit, EfficientZero's delta, the
dtype's least number, its least positive one, and the least prior that may stand for its logit."""

NOT_FINITE, NO_SCORE = -1, -2
"""What `advance` returns instead of a count: the model's numbers are not finite, or a return or a
score made of them is not. In `rows`, NO_SCORE marks the trees concerned."""

NO_ACTION = -1
"""What a rule returns where a score is NaN or the greatest is not finite: none is taken for it."""

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


class _Layout(NamedTuple):
    """Sizes of one tree: nodes, actions, numbers a block, and where an action's numbers begin."""

    nodes: int
    actions: int
    size: int
    priors: int
    qvalues: int
    visits: int
    children: int
    steps: int  # W
    path: int  # D + 2
    schedule: int  # S


def _compile(function: FunctionType, *, parallel: bool) -> Any:
    """A compiled copy under a name of its own.

    numba's cache on disk goes by name and line: of two forms of one function it would take the one
    for the other.
    """
    name = f"{function.__name__}_{'parallel' if parallel else 'serial'}"
    copy = FunctionType(function.__code__, function.__globals__, name)
    copy.__module__ = function.__module__
    copy.__qualname__ = name
    return njit(parallel=parallel, **_OPTIONS)(copy)


# Pointers in place of arrays, which are heavier to pass on.


def _type_data(_typing, array):
    """The address of an array's first item, as a pointer."""

    def generate(context, builder, signature, arguments):
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


def _type_pointer(_typing, address, like):
    """An address as a pointer of the kind of `like`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return like(address, like), generate


def _type_moved(_typing, pointer, offset):
    """The pointer to item `offset` of a pointer."""

    def generate(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), generate


def _type_number(_typing, like, number):
    """A number as an item of the pointer `like`: a plain 1 would make float64 of a float32."""

    def generate(context, builder, signature, arguments):
        return context.cast(builder, arguments[1], signature.args[1], signature.return_type)

    return like.dtype(like, number), generate


def _type_prefetch(_typing, pointer, offset):
    """Prefetches the cache line of `pointer[offset]`; changes nothing."""

    def generate(context, builder, signature, arguments):
        address = builder.gep(arguments[0], [arguments[1]])
        address = builder.bitcast(address, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        # Read, keep in all caches, data.
        builder.call(call, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(pointer, types.intp), generate


data: Any = intrinsic(_type_data)
pointer: Any = intrinsic(_type_pointer)
moved: Any = intrinsic(_type_moved)
number: Any = intrinsic(_type_number)
prefetch: Any = intrinsic(_type_prefetch)


def advance(
    blocks, paths, rows, scratch, stored_logits, stored_valid, settings, numbers, rates, gumbel,
    kept_visits, schedule, logits_at, value_at, valid_at, reward_at, discount_at, gather, scatter,
    actions, step, previous, first, width,
):  # fmt: skip
    """Writes and backs up the last step's nodes, then walks to the next leaves.

    `settings` and `numbers` hold the rules, by the fields above; `rates` `[visits]` F is PUCT's
    `sqrt(n) * pb_c(n)` by n. `gumbel` and `kept_visits` `[B, A]` F and `schedule` `[B, S]` int64
    are Sequential Halving's. `logits_at` (`[M, A]` F), `value_at` (`[M]` F), `valid_at` (`[M, A]`
    bool), `reward_at` and `discount_at` (`[M]` F) are the addresses of the model's outputs for the
    M rows stepped last (at the start: of the B roots); making arrays of tensors would cost more
    than all else in a small search. `previous` is the number of leaves of the last step, -1 at the
    start; `first` the column of the next leaf; `width` the leaves to walk to, 0 to finish. Filled
    are `gather` and `scatter` `[B * W]` int64 and row `step` of `actions` `[steps, B * W]` int64:
    where the parents' embeddings lie in a pool `[N, B, ...]` seen as rows, where the children's
    belong, and what to step.

    Returns M, how many of the filled rows need the model, or NOT_FINITE or NO_SCORE.
    """
    num_trees = blocks.shape[0]
    bad = 0
    failed = 0
    for tree in prange(num_trees):
        # prange counts in another type, for which all would be compiled again.
        code = _advance_tree(
            np.int64(tree), blocks, paths, rows, scratch, stored_logits, stored_valid, settings,
            numbers, rates, gumbel, kept_visits, schedule, logits_at, value_at, valid_at, reward_at,
            discount_at, previous, first, width,
        )  # fmt: skip
        bad += code == NOT_FINITE
        failed += code == NO_SCORE
    if bad > 0:
        return NOT_FINITE
    if failed > 0:
        return NO_SCORE
    count = 0
    for b in range(num_trees):
        for w in range(width):
            if rows[b, w] >= 0:
                rows[b, w] = count
                length = paths[b, w, 0]
                leaf = np.int64(paths[b, w, length])
                gather[count] = np.int64(paths[b, w, length - 1]) * num_trees + b
                scatter[count] = leaf * num_trees + b
                actions[step, count] = np.int64(blocks[b, leaf, ACTION])
                count += 1
    return count


advance_parallel = _compile(advance, parallel=True)
advance_serial = _compile(advance, parallel=False)


@njit(**_OPTIONS)
def _advance_tree(
    b, blocks_, paths_, rows_, scratch_, stored_logits_, stored_valid_, settings_, numbers_, rates_,
    gumbel_, kept_visits_, schedule_, logits_at, value_at, valid_at, reward_at, discount_at,
    previous, first, width,
):  # fmt: skip
    """One tree's part of `advance`; returns 0, NOT_FINITE or NO_SCORE."""
    num_trees, num_nodes, size = blocks_.shape
    num_actions = stored_logits_.shape[2]
    start = NODE_FIELDS
    layout = _Layout(
        num_nodes,
        num_actions,
        size,
        start,
        start + num_actions,
        start + 2 * num_actions,
        start + 3 * num_actions,
        rows_.shape[1],
        paths_.shape[2],
        schedule_.shape[1],
    )
    blocks, paths, rows = data(blocks_), data(paths_), data(rows_)
    stored_logits, stored_valid = data(stored_logits_), data(stored_valid_)
    settings, numbers = data(settings_), data(numbers_)
    logits, value = pointer(logits_at, blocks), pointer(value_at, blocks)
    valid = pointer(valid_at, stored_valid)
    reward, discount = pointer(reward_at, blocks), pointer(discount_at, blocks)
    zero, one = number(blocks, 0), number(blocks, 1)
    tree = b * num_nodes * size
    path = b * layout.steps * layout.path
    row = b * layout.steps
    if b + 1 < num_trees:
        next_path = path + layout.steps * layout.path
        _fetch_walk(blocks, tree + num_nodes * size, paths, next_path, layout, blocks_.itemsize)
    bad = 0
    if previous < 0:
        blocks[tree + PARENT] = -one
        blocks[tree + ACTION] = -one
        blocks[tree + REWARD] = zero
        blocks[tree + DISCOUNT] = one
        blocks[tree + COUNT] = one
        blocks[tree + PENDING] = zero
        bad += _write_node(
            blocks, tree, stored_logits, stored_valid, b * num_nodes * num_actions,
            logits, value, valid, b, settings, numbers, layout,
        )  # fmt: skip
        if blocks[tree + END] > zero:
            bad += 1  # nothing to choose
    for w in range(previous):
        output = np.int64(rows[row + w])
        if output >= 0:
            walk = path + w * layout.path
            leaf = np.int64(paths[walk + np.int64(paths[walk])])
            at = tree + leaf * size
            blocks[at + REWARD] = reward[output]
            blocks[at + DISCOUNT] = discount[output]
            if not (math.isfinite(reward[output]) and math.isfinite(discount[output])):
                bad += 1
            bad += _write_node(
                blocks, at, stored_logits, stored_valid, (b * num_nodes + leaf) * num_actions,
                logits, value, valid, output, settings, numbers, layout,
            )  # fmt: skip
            if discount[output] == zero:
                blocks[at + END] = one
    if bad > 0:
        return NOT_FINITE
    for w in range(previous):
        bad += _back_up(blocks, tree, paths, path + w * layout.path, layout)
    if bad > 0:
        rows[row] = NO_SCORE
        return NO_SCORE
    for w in range(width):
        new = _walk(
            blocks, tree, b, paths, path + w * layout.path,
            moved(data(scratch_), b * num_actions),
            settings, numbers, data(rates_), data(gumbel_), data(kept_visits_),
            data(schedule_), stored_logits, first + w, layout,
        )  # fmt: skip
        if new == NO_SCORE:
            rows[row] = NO_SCORE
            return NO_SCORE
        rows[row + w] = new
    return 0


@njit(**_OPTIONS)
def _fetch_walk(blocks, tree, paths, path, layout, itemsize):
    """Prefetches the blocks of a tree's last walk: its back-up reads them, its next walk most."""
    line = 64 // itemsize
    for step in range(1, np.int64(paths[path]) + 1):
        at = tree + np.int64(paths[path + step]) * layout.size
        for offset in range(at, at + layout.size, line):
            prefetch(blocks, offset)


@njit(**_OPTIONS)
def _write_node(
    blocks, at, stored_logits, stored_valid, stored_at, logits, value, valid, row, settings,
    numbers, layout,
):  # fmt: skip
    """Writes one row of the outputs as a node; returns 1 where a number is not finite."""
    zero, one = number(blocks, 0), number(blocks, 1)
    start = row * layout.actions
    top = numbers[LOWEST]
    bad = 0 if math.isfinite(value[row]) else 1
    offered = 0
    outcomes = zero
    for a in range(layout.actions):
        is_valid = valid[start + a]
        stored_valid[stored_at + a] = is_valid
        logit = logits[start + a] if is_valid else numbers[LOWEST]
        stored_logits[stored_at + a] = logit
        blocks[at + layout.qvalues + a] = zero
        blocks[at + layout.visits + a] = zero
        blocks[at + layout.children + a] = -one
        if is_valid:
            offered += 1
            top = max(top, logit)
            if not math.isfinite(logit):
                bad = 1
            if a >= settings[DECISIONS]:
                outcomes = one
    total = zero
    for a in range(layout.actions):
        weight = -one
        if valid[start + a]:
            weight = math.exp(logits[start + a] - top)
            total += weight
        blocks[at + layout.priors + a] = weight
    for a in range(layout.actions):
        if valid[start + a]:
            blocks[at + layout.priors + a] /= total
    blocks[at + RAW] = value[row]
    blocks[at + VALUE] = value[row]
    blocks[at + CHANCE] = outcomes
    blocks[at + END] = one if offered == 0 else zero
    return bad


@njit(**_OPTIONS)
def _back_up(blocks, tree, paths, path, layout):
    """Averages a leaf's raw value into itself and all its ancestors; returns 1 on an overflow."""
    one = number(blocks, 1)
    length = np.int64(paths[path])
    node = tree + np.int64(paths[path + length]) * layout.size
    value = blocks[node + RAW]
    observed = blocks[node + COUNT] - blocks[node + PENDING]
    blocks[node + PENDING] -= one
    # Written so that a value that is the mean already stays what it is.
    mean = blocks[node + VALUE]
    mean += (value - mean) / (observed + one)
    blocks[node + VALUE] = mean
    bad = 0
    for step in range(length - 1, 0, -1):
        parent = tree + np.int64(paths[path + step]) * layout.size
        reward, discount = blocks[node + REWARD], blocks[node + DISCOUNT]
        action = np.int64(blocks[node + ACTION])
        value = reward + discount * value
        qvalue = reward + discount * mean
        blocks[parent + layout.qvalues + action] = qvalue
        observed = blocks[parent + COUNT] - blocks[parent + PENDING]
        blocks[parent + PENDING] -= one
        mean = (blocks[parent + VALUE] * observed + value) / (observed + one)
        blocks[parent + VALUE] = mean
        if not (math.isfinite(qvalue) and math.isfinite(mean)):
            bad = 1
        node = parent
    return bad


@njit(**_OPTIONS)
def _walk(
    blocks, tree, b, paths, path, scores, settings, numbers, rates, gumbel, kept_visits, schedule,
    stored_logits, column, layout,
):  # fmt: skip
    """Walks from the root to a leaf and notes the way.

    Returns 0 where the leaf is new, -1 where it is known and NO_SCORE where a rule found no action.
    A new leaf gets `column`. Until the model has evaluated it, other walks of the same step end
    there, and its value is its parent's.
    """
    zero, one = number(blocks, 0), number(blocks, 1)
    leaf = tree + column * layout.size
    blocks[leaf + COUNT] = zero  # unused, until the walk is known to need it
    rule = settings[ROOT_RULE]
    transform = settings[TRANSFORM]
    decisions = settings[DECISIONS]
    low, high, mean = zero, zero, zero
    if rule == EFFICIENT:
        low, high = _bounds(blocks, tree, column, layout)
    node = np.int64(0)  # a plain 0 is a type of its own
    depth = 0
    paths[path + 1] = 0
    while True:
        at = tree + node * layout.size
        if blocks[at + CHANCE] > zero:
            action = _select_outcome(blocks, at, decisions, layout)
        elif rule == PUCT:
            rate = rates[np.int64(blocks[at + COUNT])]
            if transform == SIBLINGS:
                action = _select_by_puct_and_siblings(
                    blocks, at, numbers[EPSILON], rate, decisions, layout
                )
            else:
                _transform(blocks, at, scores, settings, numbers, layout)
                action = _select_by_puct(blocks, at, scores, rate, decisions, layout)
        elif rule == EFFICIENT:
            mean = _mean_sibling_qvalue(blocks, at, node, mean, layout)
            action = _select_by_tree_bounds(
                blocks, at, low, high, mean, numbers[DELTA], rates, layout
            )
        elif rule == HALVING:
            _transform(blocks, at, scores, settings, numbers, layout)
            action = _select_by_halving(
                blocks, at, scores, stored_logits, gumbel, kept_visits, schedule, b, layout
            )
        else:
            action = np.int64(NO_ACTION)
            if transform == MIXED:
                action = _select_by_improved_policy_and_mixed(
                    blocks, at, scores, settings, numbers, layout
                )
            if action < 0:
                _transform(blocks, at, scores, settings, numbers, layout)
                logits = (b * layout.nodes + node) * layout.actions
                action = _select_by_improved_policy(
                    blocks, at, scores, stored_logits, logits, layout
                )
        if action < 0:
            return NO_SCORE
        blocks[at + COUNT] += one
        blocks[at + PENDING] += one
        blocks[at + layout.visits + action] += one
        depth += 1
        below = np.int64(blocks[at + layout.children + action])
        if below < 0:
            estimate = blocks[at + VALUE]
            blocks[at + layout.children + action] = column
            blocks[at + layout.qvalues + action] = estimate
            blocks[leaf + PARENT] = node
            blocks[leaf + ACTION] = action
            blocks[leaf + COUNT] = one
            blocks[leaf + PENDING] = one
            blocks[leaf + END] = one
            blocks[leaf + REWARD] = zero
            blocks[leaf + DISCOUNT] = one
            blocks[leaf + VALUE] = estimate
            paths[path] = depth + 1
            paths[path + depth + 1] = column
            return 0
        paths[path + depth + 1] = below
        at = tree + below * layout.size
        if blocks[at + END] > zero or depth >= settings[MAX_DEPTH]:
            paths[path] = depth + 1
            blocks[at + COUNT] += one
            blocks[at + PENDING] += one
            return -1
        node = below
        rule = settings[RULE]


@njit(**_OPTIONS)
def _select_by_puct_and_siblings(blocks, at, epsilon, rate, decisions, layout):
    """MuZero's rule with Q-values scaled by the node's neighborhood."""
    zero, one = number(blocks, 0), number(blocks, 1)
    low = blocks[at + VALUE]
    high = low
    for a in range(decisions):
        if blocks[at + layout.visits + a] > zero:
            qvalue = blocks[at + layout.qvalues + a]
            low = min(low, qvalue)
            high = max(high, qvalue)
    span = max(high - low, epsilon)
    best = np.int64(NO_ACTION)
    best_score = number(blocks, -np.inf)
    for a in range(decisions):
        prior = blocks[at + layout.priors + a]
        count = blocks[at + layout.visits + a]
        if prior >= zero:
            score = rate * prior / (count + one)
            if count > zero:
                score = (blocks[at + layout.qvalues + a] - low) / span + score
            if score > best_score:
                best_score = score
                best = a
            elif score != score:
                return np.int64(NO_ACTION)
    return best if math.isfinite(best_score) else np.int64(NO_ACTION)


@njit(**_OPTIONS)
def _select_by_puct(blocks, at, scores, rate, decisions, layout):
    """MuZero's rule with transformed Q-values in `scores`."""
    zero, one = number(blocks, 0), number(blocks, 1)
    best = np.int64(NO_ACTION)
    best_score = number(blocks, -np.inf)
    for a in range(decisions):
        prior = blocks[at + layout.priors + a]
        if prior >= zero:
            score = scores[a] + rate * prior / (blocks[at + layout.visits + a] + one)
            if score > best_score:
                best_score = score
                best = a
            elif score != score:
                return np.int64(NO_ACTION)
    return best if math.isfinite(best_score) else np.int64(NO_ACTION)


@njit(**_OPTIONS)
def _select_outcome(blocks, at, decisions, layout):
    """The chance outcome whose visits are furthest below its probability."""
    zero, one = number(blocks, 0), number(blocks, 1)
    best = np.int64(NO_ACTION)
    best_score = number(blocks, -np.inf)
    for a in range(decisions, layout.actions):
        prior = blocks[at + layout.priors + a]
        if prior >= zero:
            score = prior / (blocks[at + layout.visits + a] + one)
            if score > best_score:
                best_score = score
                best = a
            elif score != score:
                return np.int64(NO_ACTION)
    return best if math.isfinite(best_score) else np.int64(NO_ACTION)


@njit(**_OPTIONS)
def _bounds(blocks, tree, end, layout):
    """Least and greatest Q-value of all visited edges, columns 1 to `end`."""
    zero = number(blocks, 0)
    low = number(blocks, np.inf)
    high = -low
    for node in range(1, end):
        at = tree + node * layout.size
        if blocks[at + COUNT] > zero:
            qvalue = blocks[at + REWARD] + blocks[at + DISCOUNT] * blocks[at + VALUE]
            low = min(low, qvalue)
            high = max(high, qvalue)
    return low, high


@njit(**_OPTIONS)
def _mean_sibling_qvalue(blocks, at, node, above, layout):
    """Mean Q-value of the visited actions; below the root with the parent's such mean."""
    zero, one = number(blocks, 0), number(blocks, 1)
    total = zero
    count = zero
    for a in range(layout.actions):
        if blocks[at + layout.visits + a] > zero:
            total += blocks[at + layout.qvalues + a]
            count += one
    if node > 0:
        total += above
        count += one
    return total / max(count, one)


@njit(**_OPTIONS)
def _select_by_tree_bounds(blocks, at, low, high, unvisited, delta, rates, layout):
    """EfficientZero's rule."""
    zero, one = number(blocks, 0), number(blocks, 1)
    total = zero
    for a in range(layout.actions):
        total += blocks[at + layout.visits + a]
    rate = rates[np.int64(total)]
    span = max(high - low, delta)
    best = np.int64(NO_ACTION)
    best_score = number(blocks, -np.inf)
    for a in range(layout.actions):
        prior = blocks[at + layout.priors + a]
        count = blocks[at + layout.visits + a]
        if prior >= zero:
            score = blocks[at + layout.qvalues + a] if count > zero else unvisited
            if high > low:
                score = (score - low) / span
            if score != score:  # before a minimum hides it
                return np.int64(NO_ACTION)
            score = min(max(score, zero), one) + rate * prior / (count + one)
            if score > best_score:
                best_score = score
                best = a
            elif score != score:
                return np.int64(NO_ACTION)
    return best if math.isfinite(best_score) else np.int64(NO_ACTION)


@njit(**_OPTIONS)
def _transform(blocks, at, scores, settings, numbers, layout):
    """Writes a node's transformed Q-values to `scores` (`search.qtransforms`)."""
    zero, one = number(blocks, 0), number(blocks, 1)
    decisions = settings[DECISIONS]
    scale = one
    if settings[TRANSFORM] == MIXED:
        unvisited, low, span, scale = _completion(blocks, at, settings, numbers, layout)
    elif settings[TRANSFORM] == MIN_MAX:
        low = numbers[LOW]
        unvisited = low
        span = numbers[HIGH] - low
    else:
        low = blocks[at + VALUE]
        high = low
        for a in range(decisions):
            if blocks[at + layout.visits + a] > zero:
                low = min(low, blocks[at + layout.qvalues + a])
                high = max(high, blocks[at + layout.qvalues + a])
        unvisited = low
        span = max(high - low, numbers[EPSILON])
    for a in range(decisions):
        known = blocks[at + layout.visits + a] > zero
        completed = blocks[at + layout.qvalues + a] if known else unvisited
        scores[a] = scale * ((completed - low) / span)


@njit(**_OPTIONS)
def _completion(blocks, at, settings, numbers, layout):
    """The Q-value of unvisited actions, and what scales the completed ones: low, span, scale."""
    zero, one = number(blocks, 0), number(blocks, 1)
    decisions = settings[DECISIONS]
    low = number(blocks, np.inf)
    high = -low
    total = zero
    most = zero
    mass = zero
    weighted = zero  # relative to the raw value, so that equal values stay equal
    known = 0
    unvisited = blocks[at + RAW]
    for a in range(decisions):
        count = blocks[at + layout.visits + a]
        if count > zero:
            qvalue = blocks[at + layout.qvalues + a]
            weight = max(blocks[at + layout.priors + a], numbers[TINY])
            known += 1
            total += count
            most = max(most, count)
            mass += weight
            weighted += weight * (qvalue - unvisited)
            low = min(low, qvalue)
            high = max(high, qvalue)
    if settings[USE_MIXED] > 0 and known > 0:
        unvisited += (weighted / mass) * (total / (total + one))
    if known < decisions:
        low = min(low, unvisited)
        high = max(high, unvisited)
    scale = (numbers[OFFSET] + most) * numbers[SCALE]
    if settings[RESCALE] > 0:
        return unvisited, low, max(high - low, numbers[EPSILON]), scale
    return unvisited, zero, one, scale


@njit(**_OPTIONS)
def _select_by_halving(blocks, at, scores, stored_logits, gumbel, kept_visits, schedule, b, layout):
    """Gumbel MuZero's rule at the root."""
    zero = number(blocks, 0)
    noise = b * layout.actions
    logits = b * layout.nodes * layout.actions
    done = zero
    top = stored_logits[logits]
    for a in range(layout.actions):
        done += blocks[at + layout.visits + a] - kept_visits[noise + a]
        top = max(top, stored_logits[logits + a])
    considered = schedule[b * layout.schedule + np.int64(done)]
    best = np.int64(NO_ACTION)
    best_score = number(blocks, -np.inf)
    for a in range(layout.actions):
        count = np.int64(blocks[at + layout.visits + a] - kept_visits[noise + a])
        if blocks[at + layout.priors + a] >= zero and count == considered:
            score = gumbel[noise + a] + (stored_logits[logits + a] - top) + scores[a]
            if score != score:
                return np.int64(NO_ACTION)
            if score > best_score:
                best_score = score
                best = a
    return best if math.isfinite(best_score) else np.int64(NO_ACTION)


@njit(**_OPTIONS)
def _select_by_improved_policy(blocks, at, scores, stored_logits, logits, layout):
    """Gumbel MuZero's rule below the root; leaves the unnormalized policy in `scores`."""
    zero, one = number(blocks, 0), number(blocks, 1)
    least = number(blocks, -np.inf)
    top_logit, top = least, least
    for a in range(layout.actions):
        if blocks[at + layout.priors + a] >= zero:
            top_logit = max(top_logit, stored_logits[logits + a])
    count = one
    for a in range(layout.actions):
        if blocks[at + layout.priors + a] >= zero:
            # Logits first come down to at most 0: far from it they have no digits for Q-values.
            scores[a] += stored_logits[logits + a] - top_logit
            top = max(top, scores[a])
            count += blocks[at + layout.visits + a]
    total = zero
    for a in range(layout.actions):
        if blocks[at + layout.priors + a] >= zero:
            scores[a] = math.exp(scores[a] - top)
            total += scores[a]
    return _most_behind(blocks, at, scores, total, count, layout)


@njit(**_OPTIONS)
def _select_by_improved_policy_and_mixed(blocks, at, scores, settings, numbers, layout):
    """The same with Q-values completed by the mixed value, or NO_ACTION where logits are needed.

    Unvisited actions share one completed Q-value, so they share one exponential; and `p * exp(Q)`
    stands for `exp(logit + Q)`, unless a prior is too small a number to keep its digits. The
    exponentials are relative to the greatest of the valid actions, so that one of them is 1 and
    the policy has weight: the value of unvisited actions may lie above all where there are none.
    """
    zero, one = number(blocks, 0), number(blocks, 1)
    unvisited, low, span, scale = _completion(blocks, at, settings, numbers, layout)
    top = number(blocks, -np.inf)
    count = one
    for a in range(layout.actions):
        prior = blocks[at + layout.priors + a]
        if prior >= zero:
            visits = blocks[at + layout.visits + a]
            top = max(top, blocks[at + layout.qvalues + a] if visits > zero else unvisited)
            count += visits
            if prior < numbers[LEAST_PRIOR]:
                return np.int64(NO_ACTION)
    if scale < zero:
        return np.int64(NO_ACTION)  # the greatest value has the least exponential
    top = scale * ((top - low) / span)
    common = math.exp(scale * ((unvisited - low) / span) - top)
    total = zero
    for a in range(layout.actions):
        prior = blocks[at + layout.priors + a]
        if prior >= zero:
            weight = common
            if blocks[at + layout.visits + a] > zero:
                weight = math.exp(scale * ((blocks[at + layout.qvalues + a] - low) / span) - top)
            scores[a] = prior * weight
            total += scores[a]
    return _most_behind(blocks, at, scores, total, count, layout)


@njit(**_OPTIONS)
def _most_behind(blocks, at, policy, total, count, layout):
    """The action whose share of visits is furthest below an unnormalized policy."""
    zero = number(blocks, 0)
    best = np.int64(NO_ACTION)
    best_score = number(blocks, -np.inf)
    for a in range(layout.actions):
        if blocks[at + layout.priors + a] >= zero:
            score = policy[a] / total - blocks[at + layout.visits + a] / count
            if score > best_score:
                best_score = score
                best = a
            elif score != score:
                return np.int64(NO_ACTION)
    return best if math.isfinite(best_score) else np.int64(NO_ACTION)


def export(
    blocks, stored_logits, stored_valid, node_visits, raw_values, node_values, parents,
    action_from_parent, children_index, children_visits, children_rewards, children_discounts,
    children_values, terminal,
):  # fmt: skip
    """Writes finished trees in the public layout: the tensors of `search.tree.Tree` by name."""
    for tree in prange(blocks.shape[0]):
        _export_tree(
            np.int64(tree), blocks, stored_logits, stored_valid, node_visits, raw_values,
            node_values, parents, action_from_parent, children_index, children_visits,
            children_rewards, children_discounts, children_values, terminal,
        )  # fmt: skip


export_parallel = _compile(export, parallel=True)
export_serial = _compile(export, parallel=False)


@njit(**_OPTIONS)
def _export_tree(
    b, blocks, stored_logits, stored_valid, node_visits, raw_values, node_values, parents,
    action_from_parent, children_index, children_visits, children_rewards, children_discounts,
    children_values, terminal,
):  # fmt: skip
    """One tree's part of `export`."""
    _, num_nodes, num_actions = stored_logits.shape
    visits, children = NODE_FIELDS + 2 * num_actions, NODE_FIELDS + 3 * num_actions
    for node in range(num_nodes):
        used = blocks[b, node, COUNT] > 0
        node_visits[b, node] = int(blocks[b, node, COUNT])
        raw_values[b, node] = blocks[b, node, RAW] if used else 0
        node_values[b, node] = blocks[b, node, VALUE] if used else 0
        parents[b, node] = int(blocks[b, node, PARENT]) if used else -1
        action_from_parent[b, node] = int(blocks[b, node, ACTION]) if used else -1
        terminal[b, node] = used and blocks[b, node, END] > 0
        for a in range(num_actions):
            children_index[b, node, a] = int(blocks[b, node, children + a]) if used else -1
            children_visits[b, node, a] = int(blocks[b, node, visits + a]) if used else 0
            children_rewards[b, node, a] = 0
            children_discounts[b, node, a] = 0
            children_values[b, node, a] = 0
        if not used:
            for a in range(num_actions):
                stored_logits[b, node, a] = 0
                stored_valid[b, node, a] = 0
    for node in range(1, num_nodes):
        if blocks[b, node, COUNT] > 0:
            parent, action = int(blocks[b, node, PARENT]), int(blocks[b, node, ACTION])
            children_rewards[b, parent, action] = blocks[b, node, REWARD]
            children_discounts[b, parent, action] = blocks[b, node, DISCOUNT]
            children_values[b, parent, action] = blocks[b, node, VALUE]


@njit(**_OPTIONS)
def load(
    blocks, priors, valid_actions, node_visits, raw_values, node_values, parents,
    action_from_parent, children_index, children_visits, children_rewards, children_discounts,
    children_values, terminal, decisions,
):  # fmt: skip
    """Reads trees kept from an earlier search, columns 0 to K - 1; the inverse of `export`.

    `priors` `[B, K, A]` are probabilities; all other names are those of `search.tree.Tree`.
    """
    num_trees, num_kept, num_actions = priors.shape
    prior, qvalues = NODE_FIELDS, NODE_FIELDS + num_actions
    visits, children = NODE_FIELDS + 2 * num_actions, NODE_FIELDS + 3 * num_actions
    for b in range(num_trees):
        for node in range(num_kept):
            parent, action = parents[b, node], action_from_parent[b, node]
            blocks[b, node, COUNT] = node_visits[b, node]
            blocks[b, node, PENDING] = 0
            blocks[b, node, RAW] = raw_values[b, node]
            blocks[b, node, VALUE] = node_values[b, node]
            blocks[b, node, END] = 1 if terminal[b, node] else 0
            blocks[b, node, CHANCE] = 0
            blocks[b, node, PARENT] = parent
            blocks[b, node, ACTION] = action
            blocks[b, node, REWARD] = 0
            blocks[b, node, DISCOUNT] = 1
            if parent >= 0:
                blocks[b, node, REWARD] = children_rewards[b, parent, action]
                blocks[b, node, DISCOUNT] = children_discounts[b, parent, action]
            for a in range(num_actions):
                is_valid = valid_actions[b, node, a]
                if is_valid and a >= decisions:
                    blocks[b, node, CHANCE] = 1
                blocks[b, node, prior + a] = priors[b, node, a] if is_valid else -1
                blocks[b, node, visits + a] = children_visits[b, node, a]
                blocks[b, node, children + a] = children_index[b, node, a]
                blocks[b, node, qvalues + a] = (
                    children_rewards[b, node, a]
                    + children_discounts[b, node, a] * children_values[b, node, a]
                )

"""Pairwise covering arrays: every pair of option values occurs, in far fewer cases than a product.

Most faults need one or two options to coincide (Kuhn et al. 2004). Cases that need more are named
explicitly.
"""

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

import pytest


def covering_array(options: list[list[Any]]) -> list[tuple[Any, ...]]:
    """Rows that together hold every pair of values of two options; the same rows each time."""
    rows = list(product(*(range(len(values)) for values in options)))
    columns = list(combinations(range(len(options)), 2))
    pairs_of = {row: {(a, b, row[a], row[b]) for a, b in columns} for row in rows}
    missing: set[tuple[int, ...]] = set().union(*pairs_of.values())
    chosen: list[tuple[int, ...]] = []
    while missing:
        best = max(rows, key=lambda row: len(pairs_of[row] & missing))  # the first of equals
        chosen.append(best)
        missing -= pairs_of[best]
    return [tuple(options[at][value] for at, value in enumerate(row)) for row in chosen]


def pairwise(*more: tuple[Any, ...], **options: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrizes a test by a covering array of its options, and the cases named in `more`."""
    rows = covering_array([list(values) for values in options.values()])
    rows += [case for case in more if case not in rows]
    return pytest.mark.parametrize(tuple(options), rows)

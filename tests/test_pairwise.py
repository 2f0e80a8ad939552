"""The covering arrays that other tests are parametrized by."""

from itertools import combinations, product

from tests.pairwise import covering_array


def test_every_pair_of_values_occurs_in_few_rows() -> None:
    options = [list(range(8)), ["a", "b", "c"], [None, 1, 3], [True, False]]
    rows = covering_array(options)
    for first, second in combinations(range(4), 2):
        expected = set(product(options[first], options[second]))
        assert {(row[first], row[second]) for row in rows} == expected
    assert len(rows) <= 26
    assert rows == covering_array(options)
    assert covering_array([[1, 2], [3]]) == [(1, 3), (2, 3)]

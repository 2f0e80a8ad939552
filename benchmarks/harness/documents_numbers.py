"""How figures are written in the documents: intervals, ranges, lists, tables."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.harness.provenance import NOT_RECORDED
from benchmarks.harness.worker import Json


def interval(found: Json | None, form: str = ".2f", *, sign: bool = False) -> str:
    """An estimate or a median with its interval or range, or a dash for None.

    Args:
        found: `estimate` or `median`, `low` and `high`; these are None where they are not known.
        form: Of each number.
        sign: Whether each number has one.
    """
    if found is None:
        return "–"
    form = f"+z{form}" if sign else f"z{form}"  # z: no zero with a minus
    middle = f"{found['estimate' if 'estimate' in found else 'median']:{form}}"
    if found["low"] is None:
        return middle
    return f"{middle} [{found['low']:{form}}, {found['high']:{form}}]"


def digits(value: float) -> str:
    """Three digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def listed(words: Iterable[object]) -> str:
    """Words as a list in a sentence."""
    texts = [str(word) for word in words]
    if len(texts) < 2:
        return "".join(texts) or "none"
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def span(values: Iterable[float], form: str = ".2f") -> str:
    """Least and greatest, or the one that both are."""
    texts = [f"{value:{form}}" for value in sorted(values)]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    first, *others = (f"| {' | '.join(line)} |" for line in (head, *rows))
    return "\n".join([first, f"|{'---|' * len(head)}", *others])


def cores_of(provenance: Mapping[str, object]) -> str:
    """How many CPU cores a machine had, as words in a sentence."""
    machine = provenance["machine"]
    cores = machine["cores"] if isinstance(machine, Mapping) else machine
    if cores == NOT_RECORDED:
        return "a CPU"
    return "one CPU core" if cores == 1 else f"{cores} CPU cores"

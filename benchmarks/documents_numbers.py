"""How figures are written in the documents: intervals, ranges, lists, tables."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.provenance import NOT_RECORDED


def interval(
    found: Mapping[str, float] | None, form: str = ".2f", *, sign: bool = False, center: str = ""
) -> str:
    """An estimate or a median with its interval or range, or a dash for None.

    Args:
        found: `estimate` or `median`, `low` and `high`.
        form: Of each number.
        sign: Whether each number has one.
        center: The key of the first number; default: `estimate`, else `median`.
    """
    if found is None:
        return "–"
    form = f"+{form}" if sign else form
    key = center or ("estimate" if "estimate" in found else "median")
    return f"{found[key]:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


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

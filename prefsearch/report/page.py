"""Self-contained HTML reports of runs.

Styles are inline, figures are inline SVG, and a content security policy forbids the rest, so the
file reads the same in ten years, on a phone, in the dark and on paper. Every text given to it is
escaped. This file knows how to show things, not what they mean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from html import escape as escape_markup
from pathlib import Path, PurePosixPath
from typing import Literal, Self, cast
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from prefsearch.report.style import STYLE
from prefsearch.statistics.intervals import Interval
from prefsearch.storage.errors import naming_path
from prefsearch.storage.files import write_text_atomic
from prefsearch.storage.json_text import plain_number
from prefsearch.storage.visible_text import printable

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# What an SVG may not bring along: scripts, foreign HTML, and metadata with addresses in it.
_DROPPED = {"script", "foreignObject", "metadata", "iframe", "title"}


class Report:
    """Collects sections in order and writes them as one HTML file.

    Every method returns the report, so calls can be chained. Text is plain text; a blank line
    separates paragraphs.
    """

    def __init__(self, title: str, *, subtitle: str = "") -> None:
        """Start an empty report.

        Args:
            title: of the page.
            subtitle: one sentence under it: what was run, on what.
        """
        self._title = title
        self._subtitle = subtitle
        self._parts: list[str] = []
        self._sections: list[tuple[str, str]] = []
        self._figures = 0
        self._tables = 0

    def section(self, heading: str, prose: str = "") -> Self:
        """Begin a section, listed in the contents, with optional prose."""
        anchor = f"section-{len(self._sections) + 1}"
        self._sections.append((anchor, heading))
        self._parts.append(f'<h2 id="{anchor}">{escape(heading)}</h2>')
        return self.prose(prose)

    def prose(self, text: str) -> Self:
        """Add paragraphs."""
        paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", text))
        self._parts.extend(f"<p>{escape(p)}</p>" for p in paragraphs if p)
        return self

    def table(
        self,
        rows: Sequence[Mapping[str, object]],
        columns: Sequence[str] | Mapping[str, str] | None = None,
        *,
        caption: str,
    ) -> Self:
        """Add a table; columns whose cells are all numbers or intervals are set right.

        Args:
            rows: one mapping a row; a missing or None cell shows as a dash.
            columns: keys in order, or key to heading; by default every key of the rows.
            caption: what the table shows, with units.

        Raises:
            ValueError: a column occurs in no row.
        """
        if columns is None:
            columns = list(dict.fromkeys(key for row in rows for key in row))
        headings = dict(columns) if isinstance(columns, Mapping) else {c: c for c in columns}
        for key in headings:
            if rows and not any(key in row for row in rows):
                found = ", ".join(sorted({k for row in rows for k in row}))
                raise ValueError(f"no row has the column {key!r}; the rows have: {found}")
        kinds = {k: _alignment([row.get(k) for row in rows]) for k in headings}
        self._tables += 1
        head = "".join(
            f'<th scope="col"{kinds[k]}>{escape(heading)}</th>' for k, heading in headings.items()
        )
        body = "".join(
            "<tr>"
            + "".join(f"<td{kinds[k]}>{escape(format_cell(row.get(k)))}</td>" for k in headings)
            + "</tr>"
            for row in rows
        )
        label = f"<b>Table {self._tables}.</b> {escape(caption)}"
        self._parts.append(
            # A wide table scrolls in its own box, which the keyboard can reach.
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
            f"<table><caption>{label}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )
        return self

    def figure(self, path: str | os.PathLike[str], *, alt: str, caption: str) -> Self:
        """Add an SVG figure inline, as `search.evaluation.figures` writes it.

        Args:
            path: the SVG, or the PNG beside it.
            alt: what the figure shows, for those who cannot see it: the finding, not the axes.
            caption: under the figure.

        Raises:
            ValueError: the file is not an SVG, or it refers to another file or host; or alt is
                empty.
            StorageError: the file could not be read.
        """
        if not alt.strip():
            raise ValueError(f"figure {os.fspath(path)} has no alt text: say what it shows")
        source = Path(path).with_suffix(".svg")
        with naming_path(source, "read"):
            content = source.read_bytes()
        self._figures += 1
        svg = _inline_svg(content, source, prefix=f"figure{self._figures}-", alt=alt)
        self._parts.append(
            f"<figure>{svg}<figcaption><b>Figure {self._figures}.</b> {escape(caption)}"
            "</figcaption></figure>"
        )
        return self

    def examples(
        self,
        prompt: str,
        responses: Sequence[tuple[str, str, Mapping[str, object]]],
    ) -> Self:
        """Show responses to one prompt side by side, line breaks kept.

        Args:
            prompt: the prompt.
            responses: for each, a label ("best of 16"), the text, and facts about it (scores,
                tokens) shown under it.
        """
        cards = "".join(
            f'<article class="card"><h4>{escape(label)}</h4><div class="text">{escape(text)}</div>'
            f"{_definitions(facts)}</article>"
            for label, text, facts in responses
        )
        self._parts.append(
            f'<div class="example"><div class="prompt"><b>Prompt</b>'
            f'<div class="text">{escape(prompt)}</div></div><div class="cards">{cards}</div></div>'
        )
        return self

    def preformatted(self, text: str, *, summary: str) -> Self:
        """Add a collapsible block of text in a fixed-width font, line breaks kept.

        Args:
            text: the block.
            summary: the line that opens it.
        """
        self._parts.append(
            f'<details class="preformatted"><summary>{escape(summary)}</summary>'
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(summary)}">'
            f"<pre>{escape(text)}</pre></div></details>"
        )
        return self

    def link(self, path: str, text: str) -> Self:
        """Add a link to a file in the report's folder.

        Args:
            path: relative to the report, below its folder.
            text: what the link reads.

        Raises:
            ValueError: the path is absolute or leads out of the folder.
        """
        parts = PurePosixPath(path).parts
        if not parts or PurePosixPath(path).is_absolute() or ".." in parts:
            raise ValueError(f"link: found {path!r}; required: a path below the report's folder")
        self._parts.append(f'<p><a href="./{escape(quote(path))}">{escape(text)}</a></p>')
        return self

    def settings(self, heading: str, values: Mapping[str, object], *, opened: bool = False) -> Self:
        """Add a collapsible block of names and values: configuration, environment or cost.

        Args:
            heading: the line that opens it.
            values: nested mappings show under dotted names.
            opened: whether it starts open; paper shows it either way.
        """
        flat = _flatten(values)
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(format_cell(value))}</td></tr>'
            for name, value in flat.items()
        )
        self._parts.append(
            f'<details class="settings"{" open" if opened else ""}><summary>{escape(heading)}'
            f"</summary><table><tbody>{rows}</tbody></table></details>"
        )
        return self

    def html(self) -> str:
        """Return the whole page."""
        links = "".join(f'<li><a href="#{a}">{escape(h)}</a></li>' for a, h in self._sections)
        contents = f'<nav aria-label="Contents"><ol>{links}</ol></nav>' if links else ""
        subtitle = f'<p class="subtitle">{escape(self._subtitle)}</p>' if self._subtitle else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            # An empty icon, or a browser asks the host for /favicon.ico.
            '<link rel="icon" href="data:,">\n'
            f"<title>{escape(self._title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f"<header><h1>{escape(self._title)}</h1>{subtitle}{contents}</header>\n<main>\n"
            + "\n".join(self._parts)
            + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page in one step.

        Raises:
            StorageError: the file could not be written; an old report is untouched.
        """
        return write_text_atomic(path, self.html())


def escape(text: str) -> str:
    """Escapes text for HTML."""
    return escape_markup(printable(text))


def format_cell(value: object) -> str:
    """Format a cell: three significant digits, thousands separators, intervals in brackets."""
    value = plain_number(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.3g}"
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return ", ".join(f"{k}: {format_cell(v)}" for k, v in items)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(format_cell(v) for v in cast("Sequence[object]", value))
    return str(value).replace("-", "−") if isinstance(value, Interval) else str(value)


def _alignment(cells: Sequence[object]) -> Literal["", ' class="number"']:
    shown = [c for c in cells if c is not None]
    kinds = (int, float, np.number, Interval)
    numeric = all(isinstance(c, kinds) and not isinstance(c, bool) for c in shown)
    return ' class="number"' if shown and numeric else ""


def _definitions(facts: Mapping[str, object]) -> str:
    items = (
        f"<div><dt>{escape(str(k))}</dt><dd>{escape(format_cell(v))}</dd></div>"
        for k, v in facts.items()
    )
    return f"<dl>{''.join(items)}</dl>" if facts else ""


def _flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(cast("Mapping[str, object]", value), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _inline_svg(content: bytes, source: Path, *, prefix: str, alt: str) -> str:
    """Prepare an SVG for inlining: unique ids, no external references, alt text."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{source} is not an SVG ({error}): draw it with the figures") from error
    if root.tag != f"{{{_SVG}}}svg":
        raise ValueError(f"{source} holds <{root.tag}>, required an SVG: draw it with the figures")
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in _DROPPED:
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        if element.text and element.tag == "style":
            element.text = _own_references(element.text, source, prefix)
        element.attrib = _own_attributes(element.attrib, source, prefix)
    for name in ("width", "height"):  # the page sets the size; viewBox keeps the shape
        root.attrib.pop(name, None)
    root.attrib |= {"xmlns": _SVG, "role": "img", "aria-label": printable(alt)}
    return ElementTree.tostring(root, encoding="unicode")


def _own_attributes(attributes: Mapping[str, str], source: Path, prefix: str) -> dict[str, str]:
    own: dict[str, str] = {}
    for name, value in attributes.items():
        short = _local(name)
        if short.lower().startswith("on"):
            continue  # event handlers
        if short == "id":
            value = prefix + value
        elif short == "href":
            if not value.startswith(("#", "data:image/")):
                raise ValueError(f"{source} refers to {value!r}: a report holds all it shows")
            value = f"#{prefix}{value[1:]}" if value.startswith("#") else value
        else:
            value = _own_references(value, source, prefix)
        own[short] = value
    return own


def _own_references(text: str, source: Path, prefix: str) -> str:
    """Prefix every `url(#id)` and refuse any other `url(...)` or import."""
    outside = re.search(r"url\(\s*['\"]?(?!#)[^)]*\)|@import", text)
    if outside:
        raise ValueError(f"{source} refers to {outside[0]!r}: a report holds all it shows")
    return re.sub(r"url\(\s*(['\"]?)#", rf"url(\1#{prefix}", text)


def _local(name: object) -> str:
    """A tag or attribute without its namespace."""
    return name.rpartition("}")[2] if isinstance(name, str) else ""

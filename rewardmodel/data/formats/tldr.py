r"""`openai/summarize_from_feedback`, comparisons: two summaries of one Reddit post or news article.

A row is `info` (of a post `subreddit`, `title`, `post`; of a CNN/Daily Mail article `article`),
`summaries` (two of `text`, `policy`, `note`), `choice` (0 or 1), `worker`, `batch`, `split` and
`extra` (`confidence`, 1 to 9, where the labeler gave one).

The queries are the published ones. A post's ends in "TL;DR:" and its summary begins with a space;
an article's ends in "TL;DR:\n" and its summary begins at once. `confidence` is kept as it is, null
where there is none; on which side of the labelers' scale an answer lay is already in `choice`.
`subset` is split and batch, "valid1/batch7", since batches differ in policies and in labelers.

Source: Stiennon et al. 2020, "Learning to summarize from human feedback", appendix B; the query
formats and lengths as in the code released with it.
"""

from collections.abc import Mapping
from typing import Any

from rewardmodel.data.formats.fields import (
    bad_value,
    take_list,
    take_mapping,
    take_number,
    take_text,
)
from rewardmodel.data.formats.format import ConvertOptions, Format
from rewardmodel.data.rows import PreferenceDataError, Row

POST_QUERY = "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
ARTICLE_QUERY = "Article:\n{article}\n\nTL;DR:\n"


def query_of(info: Mapping[str, object]) -> str:
    """The whole query for a post or an article.

    Raises:
        PreferenceDataError: A field is missing or is not text.
    """
    template, fields, _ = _parts(info)
    return template.format(**fields)


def truncate_query(tokenizer: Any, info: Mapping[str, Any], *, max_tokens: int = 512) -> str:
    r"""The query for a post or an article, cut to at most `max_tokens` tokens.

    The post is cut at its last "\n" at which the query fits; where even its first line is too
    long, that line is cut at the last character that fits. Title and "TL;DR:" are never cut.

    Args:
        tokenizer: Counts tokens, begin and end tokens excluded.
        info: The row's `info`.
        max_tokens: 512 for posts in the paper; 1,919 for articles in its code.

    Raises:
        PreferenceDataError: A field is missing or is not text, or the query is too long even
            without the post.

    Source: Stiennon et al. 2020, appendix B.2. Their code removes single characters from a line
    that is too long; the bisection here gives the same as long as more text is never fewer tokens.
    """
    template, fields, long_field = _parts(info)
    text = fields[long_field]

    def cut(length: int) -> str:
        return template.format(**{**fields, long_field: text[:length]})

    def fits(length: int) -> bool:
        ids = tokenizer(cut(length), add_special_tokens=False)["input_ids"]
        return len(ids) <= max_tokens

    length = len(text)
    while not fits(length):
        newline = text.rfind("\n", 0, length)
        if newline < 0:
            break
        length = newline
    else:
        return cut(length)
    low, high = 0, length
    if not fits(low):
        raise PreferenceDataError(
            f"the query has more than {max_tokens} tokens even with an empty {long_field!r}: "
            f"{cut(0)[:60]!r}; required is room for the rest of it. Raise query_tokens, or drop "
            'the row (on_bad_row="skip").',
            reason="query too long",
        )
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return cut(low)


def convert_tldr(row: Row, options: ConvertOptions) -> list[dict[str, Any]]:
    """One pair of summaries with the fixed query, the labeler's confidence and the batch.

    Raises:
        PreferenceDataError: A field is missing or wrong.
    """
    info = take_mapping(row, "info")
    summaries = take_list(row, "summaries", dict, required="a list of two objects with a text")
    if len(summaries) != 2:
        raise bad_value("summaries", summaries, "a list of two objects with a text")
    choice = row.get("choice")
    if isinstance(choice, bool) or choice not in (0, 1):
        raise bad_value("choice", choice, "0 or 1, the better of the two summaries")
    is_article = _parts(info)[2] == "article"
    texts = [take_text(summary, "text") for summary in summaries]
    if not all(texts):
        raise bad_value("text", "", "text in both summaries")
    if not is_article:
        texts = [text if text[0].isspace() else f" {text}" for text in texts]
    if options.query_tokens is None:
        prompt = query_of(info)
    else:
        prompt = truncate_query(options.tokenizer, info, max_tokens=options.query_tokens)
    extra = row.get("extra")
    confidence = None
    if isinstance(extra, Mapping) and extra.get("confidence") is not None:
        confidence = take_number(extra, "confidence", low=1, high=9)
    return [
        {
            "prompt": prompt,
            "chosen": texts[int(choice)],
            "rejected": texts[1 - int(choice)],
            "confidence": confidence,
            "subset": f"{take_text(row, 'split')}/{take_text(row, 'batch')}",
        }
    ]


def _parts(info: Mapping[str, Any]) -> tuple[str, dict[str, str], str]:
    """The template, its fields, and which of them may be cut."""
    # On the hub every row has every field, null where it does not apply.
    if info.get("article") is not None:
        return ARTICLE_QUERY, {"article": take_text(info, "article")}, "article"
    fields = {name: take_text(info, name) for name in ("subreddit", "title", "post")}
    return POST_QUERY, fields, "post"


FORMAT = Format(
    "tldr",
    "openai/summarize_from_feedback: two summaries of a post, with confidences",
    convert_tldr,
    signatures=(frozenset({"info", "summaries", "choice"}),),
    # The hub keeps a script for these comparisons, which `datasets` no longer runs; its own parquet
    # export of them does load.
    hub={
        "openai/summarize_from_feedback": {
            "data_dir": "comparisons",
            "revision": "refs/convert/parquet",
        }
    },
    aside=frozenset({"worker"}),
)

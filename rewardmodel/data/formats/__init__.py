"""Converters from the formats in which human preferences are published, one file a source."""

from rewardmodel.data.formats.hh import convert_hh
from rewardmodel.data.formats.options import ConvertOptions
from rewardmodel.data.formats.qa_feedback import convert_qa_feedback
from rewardmodel.data.formats.ranked import convert_rankings, convert_scores, ranks_of_scores
from rewardmodel.data.formats.rewardbench import convert_reward_bench
from rewardmodel.data.formats.table import (
    FORMATS,
    Format,
    FormatName,
    describe_formats,
    format_named,
    format_of_source,
    hub_options,
    recognise,
)
from rewardmodel.data.formats.tldr import convert_tldr, query_of, truncate_query
from rewardmodel.data.formats.ultrafeedback import convert_ultrafeedback

__all__ = [
    "FORMATS",
    "ConvertOptions",
    "Format",
    "FormatName",
    "convert_hh",
    "convert_qa_feedback",
    "convert_rankings",
    "convert_reward_bench",
    "convert_scores",
    "convert_tldr",
    "convert_ultrafeedback",
    "describe_formats",
    "format_named",
    "format_of_source",
    "hub_options",
    "query_of",
    "ranks_of_scores",
    "recognise",
    "truncate_query",
]

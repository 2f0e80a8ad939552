"""Converters from the formats in which human preferences are published, one file a source."""

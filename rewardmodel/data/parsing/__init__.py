"""From a row to a pair: prompts, replies, transcripts, templates."""

"""From rows of compared responses to batches of token ids."""

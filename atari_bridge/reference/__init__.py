"""Published scores of other agents."""

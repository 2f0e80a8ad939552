"""Text as a planning problem, and the planners by name."""

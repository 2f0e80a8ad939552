"""What the benchmarks share: provenance of results, and figures of the documents."""

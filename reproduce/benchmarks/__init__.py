"""The benchmarks: test people, truth, measures and published numbers."""

"""Benchmarks: items, a scorer, an aggregation."""

"""Benchmarks: gclip against named peers, in one run, medians of repeated pairs."""

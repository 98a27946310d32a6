"""Measurements: each a command, `python -m experiments.benchmarks.NAME`; `suite` runs all of them."""

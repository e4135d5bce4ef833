"""Commands that print tables of measurements; run as ``python -m benchmarks.NAME``."""

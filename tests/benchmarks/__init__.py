"""Speed and memory, each figure a ratio within one run: ``python -m tests.benchmarks``."""

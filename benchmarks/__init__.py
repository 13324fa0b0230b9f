"""What a running server answers, held against what it should have: `python -m benchmarks.accuracy`."""

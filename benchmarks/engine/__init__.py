"""The decoder's engine beside its peers, on the same weights and in the same minutes: `python -m benchmarks.engine`."""

"""What the benchmarks share; it lives in :mod:`mtl.bench.measuring`."""

from mtl.bench.measuring import CountCalls, Step, interleaved, peak_bytes, saved_bytes

__all__ = ["CountCalls", "Step", "interleaved", "peak_bytes", "saved_bytes"]

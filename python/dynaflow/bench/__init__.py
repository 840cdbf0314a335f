"""Demo and benchmarks: two ranks on a shaped link, interleaved measurements, bounds and records."""

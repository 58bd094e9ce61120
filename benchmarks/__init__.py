"""Measurements that need a real data set or a quiet machine; see docs/benchmarks.md."""

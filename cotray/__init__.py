"""cotray: CoTCoNet leukemia detection as a distributed optimization service on Ray."""

__version__ = "0.1.0"

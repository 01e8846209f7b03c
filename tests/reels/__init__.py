"""Films with every fault that a reel can have, for tests and benchmarks."""

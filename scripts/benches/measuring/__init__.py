"""What several benchmarks share: random weights of any size, the device's own ceilings, and the written record."""

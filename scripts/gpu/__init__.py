"""What scripts/gpu_suite runs: `suite` the parts and their table, `packages` whole ones against the
CPU's, `ops` and `model` the benchmarks, `timing` how they are timed."""

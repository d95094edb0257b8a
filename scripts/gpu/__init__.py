"""What scripts/gpu_suite runs: `suite` the parts and their table, `ops` and `model` the benchmarks,
`timing` how they are timed."""

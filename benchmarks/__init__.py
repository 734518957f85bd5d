"""Benchmarks of conversions and of the operator, compared with ultralytics' own export, plain Jobs and JobSet."""

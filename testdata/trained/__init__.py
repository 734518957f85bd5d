"""The trained models of ``testdata/models``: how each is loaded, converted and measured, for tests and benchmarks."""

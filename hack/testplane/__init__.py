"""An API server without nodes, the operator as a process, and the objects of exports: for tests and benchmarks."""

"""What measurements share: the machine, and the time and memory of processes."""

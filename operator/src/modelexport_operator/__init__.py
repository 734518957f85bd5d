"""The operator: a pure core that decides (``sync`` and what it uses) and a thin shell that watches and writes."""

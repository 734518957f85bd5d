"""The operator: a pure core that decides (``sync`` and its helpers), and a thin shell that watches and writes."""

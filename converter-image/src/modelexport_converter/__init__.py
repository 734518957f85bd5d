"""The converter: one process that turns one checkpoint into one verified artifact."""

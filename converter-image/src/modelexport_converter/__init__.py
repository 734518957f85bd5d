"""The converter: a process that turns one checkpoint into one verified artifact."""

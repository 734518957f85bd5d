"""The page about all targets of an export."""

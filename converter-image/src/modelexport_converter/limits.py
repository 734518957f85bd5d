"""Limits that several packages of the converter share."""

CHECKPOINT_LIMIT = 4 << 30
"""Bytes of a checkpoint, packed and unpacked."""

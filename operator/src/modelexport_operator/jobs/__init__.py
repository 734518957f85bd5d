"""Builds the Job of a target, and reads its state from the Job and its Pods. Pure."""

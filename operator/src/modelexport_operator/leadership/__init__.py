"""Elects the leader through a Lease, and ends a process that lost it."""

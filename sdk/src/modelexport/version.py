"""The version of SDK, operator and converter, which are released together."""

__version__ = "0.1.0"

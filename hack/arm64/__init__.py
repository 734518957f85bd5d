"""A machine with arm64 that this one emulates, and conversions on it with the converter's lock for arm64."""

"""The cost of watching Jobs and Pods, by our own list and watch and by kopf."""

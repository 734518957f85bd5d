"""Reads what a checkpoint is made of, as data: archives, pickles, tensors, trees of modules."""

"""Blocks: the fields of a sample, the batch they make, and the one path from an item to tensors."""

"""A fit in words, numbers and pictures."""

"""Beam maps of known surfaces, with every kind of noise."""

"""Readers and writers, one for each format."""

from ooftorch.io.observations import read, write

__all__ = ["read", "write"]

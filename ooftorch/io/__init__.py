"""Readers and writers, one module per format."""

from ooftorch.io.observations import read, write

__all__ = ["read", "write"]

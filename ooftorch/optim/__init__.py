"""Minimising torch functions: SciPy's methods and a batched BFGS, knowing nothing of telescopes."""

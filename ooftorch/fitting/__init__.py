"""From observations to surfaces: likelihood, search and error bars."""

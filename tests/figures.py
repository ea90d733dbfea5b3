"""What a figure shows, as a reader would take it from the page."""

import numpy as np
from matplotlib.container import ErrorbarContainer


def shown(axes, label):
    """Points (x, y) under a name of the legend."""
    handle = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))[label]
    assert label in [text.get_text() for text in axes.get_legend().get_texts()]
    return points(handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle)


def points(line):
    """Points (x, y) of a line, all of them within the limits of its axes."""
    x, y = (np.asarray(values, float) for values in line.get_data())
    for values, limits in ((x, line.axes.get_xlim()), (y, line.axes.get_ylim())):
        assert min(limits) <= values.min() <= values.max() <= max(limits)
    return x, y

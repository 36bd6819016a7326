"""Pictures of sweeps, paths, runs and models, drawn with matplotlib, which is imported on use.

Every function draws on the `ax` that it is given, or on a new one, and returns it: titles, limits and
`ax.figure.savefig(...)` are the caller's. Host only. The colours are those of Okabe and Ito, Color
universal design, 2008, told apart by all common kinds of colour vision.
"""

from jaxhinge.plot._curves import regularization_path, training_history, validation_curve
from jaxhinge.plot._models import decision_boundary, margin_histogram

__all__ = ["decision_boundary", "margin_histogram", "regularization_path", "training_history", "validation_curve"]

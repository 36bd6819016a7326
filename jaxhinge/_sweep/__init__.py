"""Many problems on the same rows: sweeps with cross-validation, and regularisation paths.

It holds grids, folds, scores and their results, and imports `_solve` and what lies below it.
"""

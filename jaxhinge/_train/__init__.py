"""Training with optax: the step, the loop as a pure function, and `fit` on the host.

It holds batches, optimizers, epochs, streams of batches and their state, and imports `_solve` and what lies below it.
"""

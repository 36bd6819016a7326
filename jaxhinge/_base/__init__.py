"""The ground floor: checks of arguments, precision, interrupts, files and sources of data.

It knows nothing of losses or solvers, and imports JAX, NumPy and the optional orbax only.
"""

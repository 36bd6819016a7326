"""The ground floor: checks of arguments, precision, interrupts, files and sources of data.

It imports no other room: only JAX, NumPy and the optional orbax.
"""

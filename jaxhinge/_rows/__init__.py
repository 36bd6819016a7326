"""How rows of features lie in memory and on devices.

It holds the operators of rows, dense or sparse, on the host or under a trace, and the layout of rows over a mesh, and
imports `_base` only.
"""

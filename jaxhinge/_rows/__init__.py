"""How rows of features lie in memory and on devices.

It holds the layout of rows over a mesh, and imports `_base` only.
"""

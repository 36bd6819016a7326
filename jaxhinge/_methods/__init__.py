"""The methods that solve a problem, and the certificates that prove it: arrays in, arrays out.

It holds the program and its dual, the interior point, the ascent, their linear systems, the order in which they are
tried, and how they run: compiled, interruptible, in batches, over a mesh. It imports `_base` and `_rows`.
"""

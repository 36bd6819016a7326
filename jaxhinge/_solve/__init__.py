"""The public solvers: from what users type to a `Solution` with its gap.

It checks and prepares the problem, chooses how it is run, and gives the answer back. It imports `_methods`,
`_objective` and what lies below them.
"""

"""The objective that users state: affine models, their predictions, the regularised mean loss, and its files.

It imports `_base`, `_rows` and `losses`.
"""

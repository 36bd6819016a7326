"""The methods for rows that are read block by block in every pass. It imports `_base` and `_methods`."""

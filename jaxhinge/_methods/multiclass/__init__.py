"""The methods for several classes at once: Crammer-Singer and Weston-Watkins. It imports `_base` and `_methods`."""

"""The built-in language model: a small decoder in NumPy, its three versions, and how they came."""

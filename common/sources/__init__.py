"""Sources: items, getters, splits and split files, and tables."""

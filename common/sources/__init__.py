"""Sources: items, what is read from them, splits and the files that name them."""

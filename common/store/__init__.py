"""Store: what is kept of each item after the first pass, in memory or in files."""

"""The recipes: one script a domain, and the command line ``cookbook``."""

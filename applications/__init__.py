"""The applications: one package a domain, the same vocabulary in each (data, model, task)."""

"""The applications: one package per domain, the same vocabulary in each (data, model, task)."""

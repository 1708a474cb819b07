"""The fields of ``bundle.json``, and the upgrade of older schemas.

Floor: deploy; may import show and below. Used by: its own room.
"""

from typing import Any

SCHEMA = 2
FIELDS: dict[str, Any] = {
    "schema": int,
    "domain": str,
    "created": str,
    "encoder": dict,
    "batch_tfms": list,
    "model": dict,
    "task": dict,
    "reading": dict,
    "parts": dict,
    "metrics": dict[str, float],
    "versions": dict[str, str],
    "files": dict,
    "sha256": str,
}
SINCE_2 = ("reading", "parts")


def fields_of(schema: object) -> dict[str, Any]:
    """Returns the fields of a schema and their types; for an unknown schema those of this version.

    Args:
        schema: The schema number of a bundle.
    """
    old = type(schema) is int and schema == 1
    return {name: hint for name, hint in FIELDS.items() if name not in SINCE_2 or not old}


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Returns a bundle's content in this version's schema.

    Schema 1 had no reading options except a table's target, stored in its task, and no parts; the classification of
    tables had its own task.

    Args:
        content: The content of a bundle of schema 1 or 2, its fields checked.

    Examples:
        >>> old = {"schema": 1, "task": {"kind": "tabular_classification", "target": "price", "vocab": ["a"]}}
        >>> new = upgraded(old)
        >>> new["task"], new["reading"]
        ({'kind': 'classification', 'vocab': ['a']}, {'target': 'price'})
    """
    if content["schema"] != 1:
        return content
    task, reading = dict(content["task"]), dict[str, Any]()
    if task.get("kind") in ("tabular_classification", "tabular_regression"):
        if target := task.pop("target", ""):
            reading["target"] = target
        task["kind"] = "classification" if task["kind"] == "tabular_classification" else task["kind"]
    return {**content, "schema": SCHEMA, "task": task, "reading": reading, "parts": {}}

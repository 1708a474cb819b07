"""The model card of a bundle: its inputs and outputs, its model, and the measured results.

Floor: deploy; may import show and below. Used by: its own room.
"""

from typing import Any


def model_card(content: dict[str, Any]) -> str:
    """Returns README.md for a bundle from its content (see `common.deploy.bundle`)."""
    encoder = content["encoder"]
    blocks = encoder["blocks"]
    inputs = ", ".join(block["kind"] for block in blocks[: encoder["n_inp"]])
    targets = ", ".join(block["kind"] for block in blocks[encoder["n_inp"] :]) or "none"
    lines = [f"# {content['domain']} model", "", f"Made {content['created']}.", ""]
    lines += ["| what | value |", "| --- | --- |", f"| input | {inputs} |", f"| target | {targets} |"]
    lines += [f"| model | {content['model'].get('arch', content['model']['kind'])} |"]
    vocab = next((found for block in blocks if (found := block.get("vocab") or block.get("codes"))), None)
    if vocab:
        shown = ", ".join(vocab[:20]) + (f", … ({len(vocab)})" if len(vocab) > 20 else "")
        lines.append(f"| classes | {shown} |")
    lines += ["", "## Measured", "", "| metric | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.4f} |" for name, value in sorted(content["metrics"].items())]
    lines += ["", "## Use", "", "```python", "from common import Predictor", ""]
    lines += ['Predictor("this/folder")("input")', "```", ""]
    lines += ["Made with " + ", ".join(f"{n} {v}" for n, v in sorted(content["versions"].items())) + ".", ""]
    return "\n".join(lines)

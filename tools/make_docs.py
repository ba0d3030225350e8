"""Writes docs/layers.md from the registry; a test checks that it is up to date."""

from __future__ import annotations

from pathlib import Path

from caffe_compat.layers import registry

HEAD = """# Supported layers

Made by `tools/make_docs.py` from the registry. Any other type is an error that lists these.

| type | what it computes | Caffe source |
|---|---|---|
"""


def layers_page() -> str:
    """The page's text."""
    rows = []
    for name, cls in registry().items():
        text = " ".join((cls.__doc__ or "").split())
        first, _, source = text.partition("Source:")
        sentence = first.strip().split(". ")[0].rstrip(".").replace("|", "\\|")
        rows.append(f"| {name} | {sentence} | {source.strip().rstrip('.').replace('|', '')} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    target = Path(__file__).resolve().parent.parent / "docs" / "layers.md"
    target.write_text(layers_page(), encoding="utf-8")
    print(f"written {target}")

"""What the documentation site needs besides ``mkdocs.yml``: the API pages, and our docstrings.

mkdocs calls the functions that begin with ``on_``; mkdocstrings loads the extension class.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Docstring, Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("caffe_compat", "reproduce")

_SECTION = re.compile(r"^(\w+)\n-{3,}\n(.*?)(?=^\w+\n-{3,}\n|\Z)", re.M | re.S)
# "name, other : what it is" on one line, as our docstrings have it
_ENTRY = re.compile(r"^(\*{0,2}\w[\w.*, ]*?) : (.*)$", re.M)
# Python's own prompts, which Markdown would take for quotations
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.M)


def api_page(package: str) -> str:
    """A page with every module of a package, room after room."""
    lines = [f"# {package}", "", f"::: {package}", "    options:", "      members: false", ""]
    for room in sorted(path.parent for path in (ROOT / package).glob("*/__init__.py")):
        lines += [f"## {room.name}", ""]
        for path in sorted(room.glob("*.py")):
            if path.stem != "__init__":
                lines += [f"::: {package}.{room.name}.{path.stem}", ""]
    return "\n".join(lines)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the API pages; they are made anew at every build and kept nowhere."""
    for package in PACKAGES:
        made = File.generated(config, f"api/{package}.md", content=api_page(package))
        files.append(made)
    return files


def as_numpydoc(text: str) -> str:
    """A docstring with each entry's text on a line of its own, which numpydoc's readers expect.

    ``name : what it is`` would be taken for a name and its type; types stand in the signature.
    """

    def section(found: re.Match[str]) -> str:
        title, body = found[1], found[2]
        if title in ("Returns", "Yields"):
            return f"**{title}:** {body}"
        if title in ("Parameters", "Attributes", "Raises"):
            body = _ENTRY.sub(r"\1\n    \2", body)
        return f"{title}\n{'-' * len(title)}\n{body}"

    return _SECTION.sub(section, _EXAMPLE.sub(r"```pycon\n\g<0>\n```", text))


class OneLineEntries(Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called for every module, class and function that is read."""
        if obj.docstring is not None:
            text = as_numpydoc(obj.docstring.value)
            obj.docstring = Docstring(text, parent=obj, lineno=obj.docstring.lineno)

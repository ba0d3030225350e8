"""The maintainers' programs in ``tools/``, which are scripts and no package, as modules."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tests.paths import ROOT


def tool(name: str) -> Any:
    """A script of ``tools/`` by its name without ending."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)

"""Modules that are imported when first used, so that reading a model never waits for torch."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy_import(name: str) -> ModuleType:
    """A stand-in for a module; the first attribute access imports it."""
    return _Lazy(name)

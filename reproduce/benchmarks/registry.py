"""The benchmarks that there are: every named :class:`Benchmark` of a module in this folder."""

from __future__ import annotations

import importlib
import os
import pkgutil

import reproduce.benchmarks
from caffe_compat.errors import CaffeCompatError
from reproduce.benchmarks.benchmark import Benchmark


def benchmarks() -> dict[str, type[Benchmark]]:
    """The benchmarks' classes by the names that commands call them."""
    found: dict[str, type[Benchmark]] = {}
    for file in pkgutil.iter_modules(reproduce.benchmarks.__path__):
        module = importlib.import_module(f"reproduce.benchmarks.{file.name}")
        for one in vars(module).values():
            own = isinstance(one, type) and one.__module__ == module.__name__
            if own and issubclass(one, Benchmark) and vars(one).get("name"):
                found[one.name] = one
    return dict(sorted(found.items()))


def open_benchmark(name: str, root: str | os.PathLike[str]) -> Benchmark:
    """A benchmark by its name, with its data below a folder.

    Raises
    ------
    CaffeCompatError : no such benchmark.
    """
    return _class_of(name)(root)


def open_for_testing(name: str, root: str | os.PathLike[str]) -> Benchmark:
    """The benchmark whose people a network is run on (:meth:`Benchmark.for_testing`).

    Raises
    ------
    CaffeCompatError : no such benchmark.
    DataError : its data are not there.
    """
    return _class_of(name).for_testing(root)


def _class_of(name: str) -> type[Benchmark]:
    known = benchmarks()
    if name not in known:
        raise CaffeCompatError(f"no benchmark '{name}'; there are {', '.join(known)}")
    return known[name]

"""The house keeps its order: imports flow one way, and every name means one thing.

The rooms and their levels stand in the two tables below; ``docs/architecture.md`` says what each
room is for and draws how they use each other.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import keyword
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.paths import ROOT

# From the ground up. A room may import from the rooms of lower rows, never from its own row or from
# a higher one. An import inside a function counts, because what a function needs the room needs. An
# import under TYPE_CHECKING counts as well: a room that names a type of another room knows it.
LEVELS: dict[str, list[list[str]]] = {
    "caffe_compat": [
        ["errors", "lazy"],
        ["commands", "foreign", "picturesize"],
        ["files"],
        ["definition"],
        ["engine", "weights"],
        ["layers"],
        ["network"],
        ["training"],
        ["conversion", "pycaffe"],
        ["tools"],
    ],
    "reproduce": [
        ["network", "people", "runtime"],
        ["drawing", "records"],
        ["predict", "samples"],
        ["benchmarks", "train"],
        ["experiments"],
        ["figures"],
        ["report"],
        ["cli"],
    ],
}
# reproduce stands on caffe_compat, and caffe_compat on nothing of ours.
BELOW = {"caffe_compat": [], "reproduce": ["caffe_compat"]}

# Imports that still go the wrong way: (from room, to room). The list may only become shorter.
NOT_YET: set[tuple[str, str]] = set()

# Public classes that share their name with another one, and why they may.
SAME_NAME: dict[str, str] = {
    "Net": "pycaffe has the names of Caffe's Python module",
    "Layer": "pycaffe has the names of Caffe's Python module",
    "Blob": "pycaffe has the names of Caffe's Python module",
    "NetSpec": "pycaffe has the names of Caffe's Python module",
    "Transformer": "pycaffe has the names of Caffe's Python module",
}

# What works on a machine without torch: reading, converting, scoring.
WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not to be imported here")

sys.meta_path.insert(0, NoTorch())
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


class Import(NamedTuple):
    """One import statement of one of our modules.

    Attributes
    ----------
    module : the importing module, dotted.
    target : what is imported, dotted; a module, or a module and a name in it.
    where : file and line.
    """

    module: str
    target: str
    where: str


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(package: str) -> Iterator[Import]:
    """Every import in a package, wherever in a module it stands."""
    for module, path in modules(package).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, alias.name, where)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{where}: relative import"
                for alias in node.names:
                    yield Import(module, f"{node.module}.{alias.name}", where)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_import":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{where}: lazy_import of a computed name"
                yield Import(module, str(name.value), where)


def room(dotted: str) -> str:
    """The room of a module: the package's folder or ground file that it lies in.

    What lies in no room (``caffe_compat.__version__``) belongs to the package itself.
    """
    package, _, rest = dotted.partition(".")
    name = rest.partition(".")[0]
    inside = ROOT / package / name
    is_room = name and (inside.is_dir() or inside.with_suffix(".py").exists())
    return f"{package}.{name}" if is_room else package


def level(name: str) -> int:
    """How high a room stands in its package; the package's own ``__init__`` stands above all."""
    package, _, short = name.partition(".")
    rows = LEVELS[package]
    if not short:
        return len(rows)
    for number, row in enumerate(rows):
        if short in row:
            return number
    raise AssertionError(f"the room {name} stands in no row of LEVELS")


def arrows(package: str) -> dict[tuple[str, str], list[Import]]:
    """Imports between rooms, by (from room, to room)."""
    found: dict[tuple[str, str], list[Import]] = defaultdict(list)
    for one in imports(package):
        if one.target.partition(".")[0] in LEVELS and room(one.module) != room(one.target):
            found[room(one.module), room(one.target)].append(one)
    return found


def _allowed(source: str, target: str) -> bool:
    package, other = source.partition(".")[0], target.partition(".")[0]
    if package != other:
        return other in BELOW[package]
    if target == package:  # only the version and the like, which __init__ itself defines
        return False
    return level(target) < level(source)


@pytest.mark.long
@pytest.mark.parametrize("package", LEVELS)
def test_imports_flow_one_way(package: str) -> None:
    wrong = [
        f"{one.where}: {source} imports {one.target}"
        for (source, target), found in arrows(package).items()
        if not _allowed(source, target) and (source, target) not in NOT_YET
        for one in found
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
@pytest.mark.parametrize("package", LEVELS)
def test_no_circle_of_modules(package: str) -> None:
    """Inside a room, too, no module imports one that leads back to it."""
    known = modules(package)
    needs: dict[str, set[str]] = {name: set() for name in known}
    for one in imports(package):
        for target in (one.target, one.target.rpartition(".")[0]):
            if target in known and target != one.module and not target.endswith("__init__"):
                needs[one.module].add(target)
                break
    # a package's own __init__ gathers what lies in it; what it gathers does not need it
    needs = {
        name: {target for target in found if not name.startswith(f"{target}.")}
        for name, found in needs.items()
    }
    while free := [name for name, found in needs.items() if not found & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs, f"modules in a circle, or leading to one: {', '.join(sorted(needs))}"


@pytest.mark.long
def test_what_is_mended_leaves_the_list() -> None:
    present = {arrow for package in LEVELS for arrow in arrows(package)}
    assert not NOT_YET - present


def test_every_room_has_its_row() -> None:
    for package, rows in LEVELS.items():
        for name in modules(package):
            level(room(name))
        named = [name for row in rows for name in row]
        assert len(named) == len(set(named))


@pytest.mark.long
@pytest.mark.parametrize("package", LEVELS)
def test_nothing_imports_tools_or_tests(package: str) -> None:
    outside = {"tools", "tests", "models", "docs"}
    for one in imports(package):
        assert one.target.partition(".")[0] not in outside, one.where


@pytest.mark.parametrize("package", LEVELS)
def test_modules_have_names_of_their_own(package: str) -> None:
    places = defaultdict(list)
    for name, path in modules(package).items():
        if path.stem not in ("__init__", "__main__"):  # names that Python gives a meaning
            places[path.stem].append(name)
    assert not {stem: names for stem, names in places.items() if len(names) > 1}
    # `from package import annotations` would give the feature instead of the module
    taken = {*dir(builtins), *keyword.kwlist, *__future__.all_feature_names}
    for name in modules(package):
        assert name.rpartition(".")[2] not in taken, name


def test_classes_have_names_of_their_own() -> None:
    places = defaultdict(list)
    for package in LEVELS:
        for name, path in modules(package).items():
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(name)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not {name: found for name, found in twice.items() if name not in SAME_NAME}
    assert not SAME_NAME.keys() - twice.keys(), "no longer shared: take it from the list"


def test_reading_converting_and_scoring_need_no_torch() -> None:
    """Every module of these rooms can be imported where torch cannot."""
    rooms = (
        "caffe_compat.definition",
        "caffe_compat.weights",
        "caffe_compat.layers",
        "reproduce.people",
        "reproduce.records",
        "reproduce.drawing",
        "reproduce.benchmarks",
        "reproduce.cli",
    )
    names = [
        name
        for package in LEVELS
        for name in modules(package)
        if name in LEVELS or name.startswith(tuple(f"{room}." for room in rooms))
    ]
    names += ["caffe_compat.conversion.convert", "caffe_compat.network.match"]
    assert len(names) > 40
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *names], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _picture() -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Arrows of the Mermaid graph in docs/architecture.md: inside the packages, and between them."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (graph,) = re.findall(r"```mermaid\n(.*?)```", text, re.S)
    room_of: dict[str, str] = {}
    thin: set[tuple[str, str]] = set()
    thick: set[tuple[str, str]] = set()
    package = ""
    for line in graph.splitlines():
        if started := re.fullmatch(r"\s*subgraph (\w+)", line):
            package = started[1]
        elif line.strip() == "end":
            package = ""
        elif drawn := re.fullmatch(r"\s*(\w+) (-->|==>) (\w+)(?:\[(\w+)\])?", line):
            source, kind, target, label = drawn.groups()
            for name, shown in ((source, None), (target, label)):
                room_of.setdefault(name, f"{package}.{shown or name}")
            (thin if kind == "-->" else thick).add((room_of[source], room_of[target]))
        else:
            assert line.strip() in ("", "graph TD"), line
    return thin, thick


def _reachable(drawn: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs that a way along the arrows joins."""
    pairs = set(drawn)
    while True:
        more = {(a, d) for a, b in pairs for c, d in drawn if b == c} - pairs
        if not more:
            return pairs
        pairs |= more


@pytest.mark.long
def test_the_picture_shows_the_imports() -> None:
    """Every drawn arrow is an import, and every import follows the arrows."""
    thin, thick = _picture()
    present = {arrow for package in LEVELS for arrow in arrows(package)}
    empty = sorted((thin | thick) - present)
    assert not empty, f"drawn, but nothing is imported: {empty}"
    inside = {
        (source, target)
        for source, target in present - NOT_YET
        if source.partition(".")[0] == target.partition(".")[0] and "." in source
    }
    missing = sorted(inside - _reachable(thin))
    assert not missing, f"imported, but not drawn: {missing}"


def test_the_map_names_rooms_and_files() -> None:
    """docs/architecture.md has a line for every room, and every file that it names exists."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in LEVELS:
        table = text.partition(f"## Rooms of {package}")[2].partition("\n## ")[0]
        named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.M))))
        there = {room(name).partition(".")[2] for name in modules(package)} - {""}
        assert named == there
    files = {
        str(path.relative_to(ROOT)) for package in LEVELS for path in modules(package).values()
    }
    files |= {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert any(f"/{file}".endswith(f"/{name}") for file in files), name
    for folder in re.findall(r"`((?:caffe_compat|reproduce)/\w+)`", text):
        assert (ROOT / "tests" / folder).is_dir(), folder


def test_every_folder_of_tests_has_its_row() -> None:
    """docs/architecture.md says of each folder below tests/ what it proves, and of no other."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## What the tests prove")[2]
    first_cells = re.findall(r"^\| (`[^|]*) \|", table, re.M)
    named = re.findall(r"`([\w/]+)`", " ".join(first_cells))
    tests = ROOT / "tests"
    there = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("__init__.py")}
    there -= {".", *LEVELS}  # they hold the other folders
    assert sorted(named) == sorted(there)

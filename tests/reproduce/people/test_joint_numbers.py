"""No naked joint number: which row of an array is the neck is told by the joint's name.

The orders of joints stand in ``reproduce/people/skeletons.py``; whoever wants one joint asks for
its place by name, so that the code goes with any order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

# arrays and sequences with a joint in each row, by the names that this package gives them
_ROWS = {
    *("joint", "joints", "keypoints", "parts", "part_names", "skeleton", "truth"),
    *("prediction", "predictions", "predicted", "beliefs", "belief_maps", "visible"),
}
_COORDINATES = 2  # x, y and visible are columns 0 to 2 of such an array
# orders of joints are written down there, by name
_TABLES = {"reproduce/people/skeletons.py"}
# (file, expression): why a number in it is none of a joint
ALLOWED = {
    ("reproduce/benchmarks/mpii.py", "part != 0"): (
        "all coordinates of the file's array 'part', which are 0 where nobody annotated"
    ),
}


def _name(node: ast.expr) -> str:
    """The last word of what is indexed: ``joints`` of ``person.joints``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _numbers(node: ast.expr) -> list[int]:
    """Whole numbers of an index, in lists and signs too; those of slices are lengths."""
    if isinstance(node, ast.Constant):
        is_number = isinstance(node.value, int) and not isinstance(node.value, bool)
        return [int(str(node.value))] if is_number else []
    if isinstance(node, ast.List | ast.Tuple):
        return [number for one in node.elts for number in _numbers(one)]
    if isinstance(node, ast.UnaryOp):
        return [-number for number in _numbers(node.operand)]
    return []


def _naked(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, expression) of each index by number into rows of joints, and of each comparison of a
    joint's number with a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _name(node.value).lstrip("_").lower() in _ROWS:
            axes = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            listed = any(isinstance(axis, ast.List) and _numbers(axis) for axis in axes)
            alone = len(axes) == 1 and _numbers(axes[0])
            first = len(axes) > 1 and _numbers(axes[0])
            large = any(abs(n) > _COORDINATES for axis in axes for n in _numbers(axis))
            if listed or alone or first or large:
                yield node.lineno, ast.unparse(node)
        elif (
            isinstance(node, ast.Compare)
            and _name(node.left) in ("joint", "part")
            and any(_numbers(one) for one in node.comparators)
        ):
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("joints[9]", 1),
        ("person.joints[12, :2]", 1),
        ("joints[:, [2, 3]]", 1),
        ("truth[:, 13]", 1),
        ("joints[-1]", 1),
        ("if part == 13: pass", 1),
        ("joints[:, :2]", 0),
        ("joints[..., 2]", 0),
        ("joints[names.index('neck')]", 0),
        ("joints[:, 0] < 0", 0),
        ("joints[neck, 1]", 0),
    ],
)
def test_what_is_found(code: str, count: int) -> None:
    assert len(list(_naked(ast.parse(code)))) == count


def test_joints_are_called_by_their_names() -> None:
    found: dict[tuple[str, str], int] = {}
    for path in sorted((ROOT / "reproduce").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in _TABLES:
            for line, text in _naked(ast.parse(Path(path).read_text(encoding="utf-8"))):
                found[name, text] = line
    naked = {
        f"{name}:{line}: {text}"
        for (name, text), line in found.items()
        if (name, text) not in ALLOWED
    }
    assert not naked
    assert not ALLOWED.keys() - found.keys(), "no longer there: take it from the list"

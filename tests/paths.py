"""Where recorded outputs and real data are looked for; both may be absent on a user's machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
_BESIDE = ROOT.parent / "shared"
GOLDEN = Path(os.environ.get("CPM_GOLDEN", _BESIDE / "golden"))
DATA = Path(os.environ.get("CPM_DATA", _BESIDE / "data"))
# where tests marked gpu run; "cpu" runs them without one (tools/measure_gpu.py --smoke)
TEST_DEVICE = os.environ.get("CPM_TEST_DEVICE", "cuda")
# small inputs that once failed, after public reports
REPORTED = Path(os.environ.get("CPM_REPORTED", GOLDEN.parent / "reported"))

# how the reason begins where a test skips for want of one of them
MISSING = ("no recorded outputs", "no reported inputs", "real data not found")
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"real data not found at {DATA} (set CPM_DATA)"
)


def cases(folder: str, pattern: str) -> list[Any]:
    """Recorded cases of a folder as pytest parameters; a single skipped one where there are
    none."""
    found = sorted((GOLDEN / folder).glob(pattern)) if (GOLDEN / folder).is_dir() else []
    return listed((path, str(path.relative_to(GOLDEN / folder))) for path in found)


def listed(found: Iterator[tuple[Any, str]]) -> list[Any]:
    """(value, id) pairs as pytest parameters marked golden; a single skipped one where there are
    none."""
    params = [pytest.param(value, id=name, marks=pytest.mark.golden) for value, name in found]
    if params:
        return params
    reason = f"no recorded outputs at {GOLDEN} (set CPM_GOLDEN)"
    return [
        pytest.param(None, id="absent", marks=[pytest.mark.golden, pytest.mark.skip(reason=reason)])
    ]


def reported(folder: str, pattern: str) -> list[Any]:
    """Reported inputs of a folder as pytest parameters; a single skipped one where there are
    none."""
    found = sorted((REPORTED / "bugs" / folder).glob(pattern))
    params = [pytest.param(path, id=path.name) for path in found]
    reason = f"no reported inputs at {REPORTED} (set CPM_REPORTED)"
    return params or [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]

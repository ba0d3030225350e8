"""What the recorded cases measure, kept for docs and report where ``tools/measure_parity.py`` asks
for it."""

from __future__ import annotations

import json
import os


def note(what: str, difference: float) -> None:
    """A recorded case's largest difference."""
    target = os.environ.get("CPM_PARITY")
    if target:
        with open(f"{target}.{os.getpid()}", "a", encoding="utf-8") as stream:
            stream.write(json.dumps([what, float(difference)]) + "\n")

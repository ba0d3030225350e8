"""Print pip constraints for the lowest versions that ``setup.cfg`` declares.

``name>=1.26`` becomes ``name==1.26.*``: the first release line that the project promises to work
with. ``make lowest`` installs them and runs the quick tests.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def constraints(text: str) -> list[str]:
    """Constraints for every ``name>=version`` in the text of a setup.cfg."""
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(text)
    wanted = config["options"]["install_requires"].splitlines()
    for extra in ("test", "baseline"):
        wanted += config["options.extras_require"][extra].splitlines()
    found: dict[str, str] = {}
    for line in wanted:
        declared = re.match(r"([\w-]+)>=([\d.]+)", line)
        if declared and "python_version" not in line:
            found[declared[1]] = declared[2]  # an extra may ask for more than the package does
    return [f"{name}=={version}.*" for name, version in found.items()]


if __name__ == "__main__":
    print("\n".join(constraints((ROOT / "setup.cfg").read_text(encoding="utf-8"))))

"""Print pip constraints for the lowest versions that ``setup.cfg`` declares.

``name>=1.26`` becomes ``name==1.26.*``: the first release line that the project promises to work
with. ``make lowest`` installs them and runs the quick tests.

torch is the exception: its lowest version comes with gigabytes of CUDA packages from most
registries, so that ``--torch constraints.txt`` takes the version of that file, and says so.
"""

from __future__ import annotations

import argparse
import configparser
import re
import sys
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


def with_torch_of(lines: list[str], pinned: str) -> list[str]:
    """The constraints with torch's replaced by the one in the text of a constraints file."""
    found = [line for line in pinned.splitlines() if line.startswith("torch==")]
    return [*found, *(line for line in lines if not line.startswith("torch=="))]


def main() -> None:
    """Print the constraints; what is not the lowest version is said on the error stream."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", choices=("lowest", "constraints.txt"), default="lowest")
    options = parser.parse_args()
    lines = constraints((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    if options.torch != "lowest":
        wanted = next(line for line in lines if line.startswith("torch=="))
        lines = with_torch_of(lines, (ROOT / options.torch).read_text(encoding="utf-8"))
        print(f"torch is not the lowest: {lines[0]} instead of {wanted}", file=sys.stderr)
    print("\n".join(lines))


if __name__ == "__main__":
    main()

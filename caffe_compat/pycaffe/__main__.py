"""``python -m caffe_compat.pycaffe script.py ARGUMENTS``: run a script written for Caffe."""

from __future__ import annotations

import os
import runpy
import sys

from caffe_compat.errors import CaffeCompatError
from caffe_compat.pycaffe.alias import install
from caffe_compat.pycaffe.paths import existing

_USAGE = "usage: python -m caffe_compat.pycaffe SCRIPT.py [ARGUMENTS]\n\nRuns a script written for \
Caffe's Python module: 'import caffe' means caffe_compat.pycaffe."


def main() -> None:
    """Run the script that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(_USAGE)
        return
    try:
        script = existing(sys.argv[1], "script")
    except CaffeCompatError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    install()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()

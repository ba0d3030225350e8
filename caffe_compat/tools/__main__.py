"""``python -m caffe_compat.tools``."""

from __future__ import annotations

from caffe_compat.tools import main

if __name__ == "__main__":
    main(prog_name="python -m caffe_compat.tools")

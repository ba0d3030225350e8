"""Data layers that other packages bring: CPMData works in every net, also where nobody imported
``reproduce``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import GOLDEN, ROOT

_DUMPS = GOLDEN / "cpmdata" / "training" / "dumps"
_CODE = """
import sys
import caffe_compat.pycaffe as caffe
assert not any(name.startswith("reproduce") for name in sys.modules)
net = caffe.Net(sys.argv[1], caffe.TRAIN)
net.forward()
print([net.blobs[name].data.shape for name in net.blobs if "split" not in name])
first = net.blobs["data"].data.copy()
net.forward()
print(first.std() > 0.01, (net.blobs["data"].data != first).any())
"""


@pytest.mark.golden
@pytest.mark.skipif(not _DUMPS.is_dir(), reason="no recorded CPMData layers (CPM_GOLDEN)")
def test_cpm_data_in_a_script(tmp_path: Path) -> None:
    # what an installation of this package writes, from the same lines
    declared = re.search(
        r"^caffe_compat\.sources =\n((?:    .*\n)+)", (ROOT / "setup.cfg").read_text(), re.M
    )
    assert declared is not None
    info = tmp_path / "declared-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[caffe_compat.sources]\n" + re.sub(r"^ +", "", declared[1], flags=re.M)
    )
    prototxt = sorted(_DUMPS.glob("*.prototxt"))[0]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(prototxt)],
        cwd=_DUMPS,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.match(r"\[\(\d+, 4, \d+, \d+\), \(\d+, \d+, \d+, \d+\)\]", lines[0]), lines
    assert lines[1] == "True True"

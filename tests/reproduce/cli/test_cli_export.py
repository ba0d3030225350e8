"""``cpm-export proto``: solver fields from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from caffe_compat import read_solver
from reproduce.cli import export


def _export(folder: Path, *settings: str) -> Result:
    options = [part for setting in settings for part in ("--solver", setting)]
    return CliRunner().invoke(export.main, ["proto", "-o", str(folder), *options])


def test_values_take_the_type_of_their_field(tmp_path: Path) -> None:
    result = _export(
        tmp_path,
        "type=SGD",
        "snapshot_after_train=false",
        "snapshot_prefix=2024",
        "regularization_type='L1'",
        "base_lr=1e-4",
        "stepvalue=100",
        "stepvalue=200",
        "snapshot_format=HDF5",
    )
    assert result.exit_code == 0, result.output
    solver = read_solver(tmp_path / "pose_solver.prototxt").message
    assert (solver.type, solver.snapshot_after_train) == ("SGD", False)
    assert (solver.snapshot_prefix, solver.regularization_type) == ("2024", "L1")
    assert solver.base_lr == pytest.approx(1e-4)
    assert (list(solver.stepvalue), solver.snapshot_format) == ([100, 200], 0)


@pytest.mark.parametrize(
    "setting", ["type", "no_such=1", "max_iter=many", "train_state=1", "snapshot_format=BINARY"]
)
def test_settings_that_are_refused(tmp_path: Path, setting: str) -> None:
    result = _export(tmp_path, setting)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert setting.split("=")[0] in result.output

"""HDF5Output: which files it writes over, and which it leaves alone."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from caffe_compat import Net, parse_net
from caffe_compat.errors import DataError


def _write(path: Path) -> None:
    """Run a net that writes two rows of ones, and their labels 0 and 1, into a file."""
    text = f"""
    input: "x" input_shape {{ dim: 2 dim: 3 }}
    input: "y" input_shape {{ dim: 2 dim: 1 }}
    layer {{ name: "keep" type: "HDF5Output" bottom: "x" bottom: "y"
      hdf5_output_param {{ file_name: "{path}" }} }}
    """
    Net(parse_net(text))(x=torch.ones(2, 3), y=torch.tensor([[0.0], [1.0]]))


@pytest.mark.parametrize("before", ["nothing", "an empty file", "an HDF5 file"])
def test_the_file_holds_the_batch(before: str, tmp_path: Path) -> None:
    """An earlier HDF5 file goes with all that was in it."""
    path = tmp_path / "a.h5"
    if before == "an empty file":
        path.touch()
    elif before == "an HDF5 file":
        with h5py.File(path, "w") as file:
            file["earlier"] = np.zeros(5)
    _write(path)
    with h5py.File(path) as file:
        assert sorted(file) == ["data", "label"]
        np.testing.assert_array_equal(file["data"], np.ones((2, 3, 1, 1)))
        np.testing.assert_array_equal(file["label"], np.reshape([0, 1], (2, 1, 1, 1)))


def test_a_file_of_another_kind_stays_as_it_is(tmp_path: Path) -> None:
    """A slip of the pen in file_name must not cost somebody a file that is no output."""
    path = tmp_path / "notes.txt"
    path.write_text("what I must not forget")
    with pytest.raises(DataError, match=r"'keep': .*notes\.txt exists and is no HDF5 file"):
        _write(path)
    assert path.read_text() == "what I must not forget"

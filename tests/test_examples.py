"""The examples in the docstrings of public entries run and give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.io import savemat

from reproduce.cli import models
from tests import nets

# Every name here has an example that runs.
ENTRIES = [
    "caffe_compat",
    "reproduce",
    "caffe_compat.definition.prototxt.read_net",
    "caffe_compat.weights.containers.read_weights",
    "caffe_compat.weights.read.read_model",
    "caffe_compat.network.net.Net",
    "caffe_compat.conversion.convert.convert",
    "caffe_compat.training.solver.Solver",
    "reproduce.predict.predictor.Predictor",
    "reproduce.benchmarks.measures.pck",
    "reproduce.benchmarks.scoring.evaluate",
]
SOLVER = """
net_param {
  layer { name: "data" type: "DummyData" top: "data" top: "label"
    dummy_data_param {
      shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 }
      data_filler { type: "gaussian" } data_filler { value: 1 } } }
  layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
    inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "label" top: "loss" }
}
base_lr: 0.1 lr_policy: "fixed" max_iter: 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples name."""
    made = tmp_path_factory.mktemp("examples")
    (made / "deploy.prototxt").write_text(nets.TEXT)
    (made / "solver.prototxt").write_text(SOLVER)
    nets.model_file(made)
    target = str(made / "pose.caffemodel")
    args = ["random", "--stages", "2", "--input", "128", "-o", target]
    result = CliRunner().invoke(models.main, args)
    assert result.exit_code == 0, result.output
    cv2.imwrite(str(made / "photo.png"), np.full((60, 50, 3), 90, np.uint8))
    (made / "data" / "lsp").mkdir(parents=True)
    people = np.random.default_rng(0).uniform(100, 400, (3, 14, 2000))
    savemat(made / "data" / "lsp" / "joints.mat", {"joints": people})
    return made


@pytest.mark.long
@pytest.mark.parametrize("entry", ENTRIES)
def test_example(entry: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    module_name, _, name = entry.rpartition(".")
    module = importlib.import_module(module_name or entry)
    what = getattr(module, name) if module_name else module
    text = what.__doc__ or ""
    names = dict(vars(module))
    example = doctest.DocTestParser().get_doctest(text, names, entry, None, 0)
    assert example.examples, f"{entry} has no example"
    assert "+SKIP" not in text
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert not said, "".join(said)

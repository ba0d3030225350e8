"""The release's Python demo, step by step as its notebook ran it under the real Caffe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from caffe_compat import Net, read_net
from caffe_compat.network.graph import Graph, build
from caffe_compat.weights.model import LayerBlobs, Weights
from caffe_compat.weights.wire import Blob
from reproduce.network.identify import identify
from reproduce.predict.belief import enlarge
from reproduce.predict.inputs import center_map, network_input
from reproduce.predict.job import prepare
from reproduce.predict.person_finder import PersonFinder, peaks_of
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import PYTHON_DEMO
from reproduce.predict.whole_image import padded
from reproduce.runtime.plain_opencv import resize_cv
from tests import recipe
from tests.paths import DATA, GOLDEN, cases, needs_data
from tests.pictures import read_picture

pytestmark = needs_data
_MAPS = 1e-4  # between one and two BLAS threads Caffe itself differs by a sixth of this


@dataclass
class _Demo:
    """A recorded run and the two networks with its weights."""

    said: dict[str, Any]
    steps: dict[str, npt.NDArray[Any]]
    image: npt.NDArray[np.uint8]
    finder: PersonFinder
    predictor: Predictor

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


def _net(name: str, seed: int, factor: float = 1.0) -> tuple[Net, Graph]:
    graph = build(read_net(GOLDEN / name))
    weights, _ = recipe.make(graph, seed, (1,))
    *before, last = weights.layers
    scaled = tuple(Blob((blob.data * np.float32(factor)).astype(np.float32)) for blob in last.blobs)
    made = Weights((*before, LayerBlobs(last.name, last.type, scaled)))
    return Net(graph, made).eval(), graph


@lru_cache(maxsize=1)
def _demo(path: Path) -> _Demo:
    said = json.loads(path.read_text())
    steps = dict(np.load(path.with_suffix(".npz")))
    (found,) = (DATA / "samples").rglob(said["image"])
    net, graph = _net(
        said["person_prototxt"], said["person_seed"], said["person_last_layer_factor"]
    )
    finder = PersonFinder(net, identify(graph), threshold=said["threshold"])
    net, graph = _net(said["pose_prototxt"], said["pose_seed"])
    predictor = Predictor(net, identify(graph).outputs, PYTHON_DEMO)
    return _Demo(said, steps, read_picture(found), finder, predictor)


@pytest.fixture
def demo(request: pytest.FixtureRequest) -> Iterator[_Demo]:
    yield _demo(request.param)


every_case = pytest.mark.parametrize("demo", cases("pydemo", "*.json"), indirect=True)


@every_case
def test_scaled_and_padded(demo: _Demo) -> None:
    scaled = resize_cv(demo.image, 368 / demo.size[0])
    assert demo.said["scale"] == 368 / demo.size[0]
    np.testing.assert_array_equal(scaled, demo.steps["scaled"])
    np.testing.assert_array_equal(padded(scaled), demo.steps["padded"])


@every_case
def test_person_map_and_peaks(demo: _Demo) -> None:
    belief = demo.finder.belief(demo.steps["padded"])
    np.testing.assert_allclose(belief, demo.steps["person_map"], rtol=0, atol=_MAPS)
    wide = enlarge(demo.steps["person_map"][None], 8)[0]
    sample = demo.steps["person_map_resized_sample"]
    step = -(-wide.shape[0] // sample.shape[0])
    np.testing.assert_allclose(wide[::step, ::step], sample, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(peaks_of(wide, demo.said["threshold"]), demo.steps["peaks"])
    ours = peaks_of(enlarge(belief[None], 8)[0], demo.said["threshold"])
    np.testing.assert_array_equal(ours, demo.steps["peaks"])


@every_case
def test_people_of_an_image(demo: _Demo) -> None:
    """The finder gives the same peaks, in pixels of the image."""
    people = demo.finder.at_one_scale(demo.image).people
    scale = demo.said["scale"]
    ours = [[(v + 0.5) * scale - 0.5 for v in person.center] for person in people]
    np.testing.assert_allclose(ours, demo.steps["peaks"], rtol=0, atol=1e-6)
    assert all(p.confidence and p.confidence > demo.said["threshold"] for p in people)


@every_case
def test_crops_beliefs_and_joints(demo: _Demo) -> None:
    everybody = demo.finder.at_one_scale(demo.image).people
    order = [tuple(peak) for peak in demo.steps["peaks"]]
    people = [everybody[order.index(tuple(peak))] for peak in demo.steps["people"]]
    job = prepare(demo.predictor.job("demo", demo.image, people))
    assert job.error is None
    crops = np.stack([inputs[0].pixels[..., ::-1] for inputs in job.inputs])
    np.testing.assert_array_equal(crops, demo.steps["crops"])
    centre = center_map(368, 21.0, 0)
    np.testing.assert_allclose(centre[::8, ::8], demo.steps["centre"], rtol=1e-6)
    for i, inputs in enumerate(job.inputs):
        data = network_input(inputs[0].pixels[None], demo.predictor.protocol)
        found = demo.predictor.forward(data, demo.predictor.outputs[-1:])[0, 0]
        np.testing.assert_allclose(found, demo.steps["belief"][i], rtol=0, atol=_MAPS)
    scale = demo.said["scale"]
    for i, one in enumerate(demo.predictor.predict_job(job)):
        ours = (one.joints[:, ::-1] + 0.5) * scale - 0.5
        np.testing.assert_allclose(ours, demo.steps["prediction"][:, :, i], rtol=0, atol=1e-6)


@every_case
def test_the_matlab_demo_is_one_pixel_off(demo: _Demo) -> None:
    """The two demos' centre maps differ by a pixel; confusing them would go unseen in a picture."""
    del demo
    there, here = center_map(368, 21.0, 1), center_map(368, 21.0, 0)
    np.testing.assert_array_equal(there[:-1, :-1], here[1:, 1:])
    assert list(np.unravel_index(here.argmax(), here.shape)) == [184, 184]
    assert replace(PYTHON_DEMO).combination == "python"

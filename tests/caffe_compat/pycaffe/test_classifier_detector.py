"""``caffe.Classifier`` and ``caffe.Detector``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe_compat.pycaffe as caffe
from caffe_compat.errors import CaffeCompatError

_NET = """
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 10 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.02 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
_MEAN = np.array([104.0, 117.0, 123.0])


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    """Definition, weights, picture."""
    (tmp_path / "net.prototxt").write_text(_NET)
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(tmp_path / "w.caffemodel")
    cv2.imwrite(
        str(tmp_path / "p.png"), np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    )
    return str(tmp_path / "net.prototxt"), str(tmp_path / "w.caffemodel"), str(tmp_path / "p.png")


def _scores(net: caffe.Net, picture: np.ndarray) -> np.ndarray:
    """Of an 8×10 picture, computed by hand."""
    bgr = picture[:, :, ::-1].transpose(2, 0, 1) * 255 - _MEAN[:, None, None]
    raw = net.params["ip"][0].data @ bgr.reshape(-1)
    powers = np.exp(raw - raw.max())
    return np.asarray(powers / powers.sum())


def test_a_classifier(files: tuple[str, str, str]) -> None:
    net = caffe.Classifier(
        files[0], files[1], image_dims=(12, 14), mean=_MEAN, raw_scale=255, channel_swap=(2, 1, 0)
    )
    picture = caffe.io.load_image(files[2])
    small = caffe.io.resize_image(picture, (12, 14))
    centre = net.predict([picture, picture * 0.5], oversample=False)
    assert centre.shape == (2, 4)
    np.testing.assert_allclose(centre[0], _scores(net, small[2:10, 2:12]), rtol=1e-3, atol=1e-6)
    mean = np.mean([_scores(net, crop) for crop in caffe.io.oversample([small], (8, 10))], 0)
    np.testing.assert_allclose(net.predict([picture])[0], mean, rtol=1e-3, atol=1e-6)
    plain = caffe.Classifier(files[0], files[1])
    assert plain.predict([picture]).shape == (1, 4)


def test_a_detector(files: tuple[str, str, str]) -> None:
    net = caffe.Detector(files[0], files[1], mean=_MEAN, raw_scale=255, channel_swap=(2, 1, 0))
    picture = caffe.io.load_image(files[2])
    windows = [(2, 3, 18, 23), (0, 0, 30, 40)]
    found = net.detect_windows([(files[2], windows)])
    assert [tuple(one["window"]) for one in found] == windows
    for one, (top, left, bottom, right) in zip(found, windows, strict=True):
        small = caffe.io.resize_image(picture[top:bottom, left:right], (8, 10))
        np.testing.assert_allclose(one["prediction"], _scores(net, small), rtol=1e-3, atol=1e-6)
        assert one["filename"] == files[2]
    assert net.detect_windows([]) == []
    with pytest.raises(CaffeCompatError, match="shows nothing"):
        net.detect_windows([(files[2], [(50, 50, 60, 60)])])
    with pytest.raises(CaffeCompatError, match="MATLAB"):
        net.detect_selective_search([files[2]])


def test_context_around_a_window(files: tuple[str, str, str]) -> None:
    """Inside the picture the context shows its surroundings; outside it shows the mean, which is 0
    in the input."""
    net = caffe.Detector(
        files[0], files[1], mean=_MEAN, raw_scale=255, channel_swap=(2, 1, 0), context_pad=1
    )
    picture = caffe.io.load_image(files[2])
    inner = net.crop(picture, (10, 12, 16, 20))
    assert inner.shape == (8, 10, 3)
    # 7 × 9 pixels around 13.5, 16.5 with one pixel of eight, and of ten, on each side: 10 / 8 as much
    np.testing.assert_allclose(
        inner, caffe.io.resize_image(picture[9:18, 11:22], (8, 10)), atol=1e-6
    )
    corner = net.crop(picture, (0, 0, 12, 16))
    # from -2, -2 to 15, 19: two of 18 rows and of 22 columns are outside, one row and one column
    seen = caffe.io.resize_image(picture[:15, :19], (7, 9))
    np.testing.assert_allclose(corner[1:, 1:], seen, atol=1e-6)
    np.testing.assert_allclose(corner[0], net.crop_mean[0], atol=1e-6)
    np.testing.assert_allclose(corner[:, 0], net.crop_mean[:, 0], atol=1e-6)
    made = net.transformer.preprocess("data", corner)
    np.testing.assert_allclose(made[:, 0], 0, atol=1e-4)
    assert np.abs(made[:, 2:, 2:]).max() > 1
    with pytest.raises(CaffeCompatError, match="shows nothing"):
        net.crop(picture, (100, 100, 110, 110))


def test_a_detector_of_grey_pictures(tmp_path: Path) -> None:
    """Its input has one channel, which is an axis of one entry as the batch's is."""
    text = 'input: "data" input_shape { dim: 1 dim: 1 dim: 8 dim: 10 } ' + (
        'layer { name: "p" type: "Pooling" bottom: "data" top: "p" '
        "pooling_param { pool: AVE global_pooling: true } }"
    )
    (tmp_path / "net.prototxt").write_text(text)
    net = caffe.Detector(str(tmp_path / "net.prototxt"), raw_scale=255, context_pad=1)
    assert net.crop_mean.shape == (8, 10, 1)
    assert net.crop(np.ones((40, 40, 1), np.float32), (10, 12, 16, 20)).shape == (8, 10, 1)


@pytest.mark.parametrize("context_pad", [None, 1])
def test_a_detector_of_grey_pictures_with_a_mean(tmp_path: Path, context_pad: int | None) -> None:
    (tmp_path / "net.prototxt").write_text("""
        input: "data" input_shape { dim: 2 dim: 1 dim: 8 dim: 6 }
        layer { name: "mean" type: "Reduction" bottom: "data" top: "mean"
          reduction_param { operation: MEAN axis: 1 } }""")
    for mean in (np.array([33.0]), np.full((1, 8, 6), 33.0)):
        net = caffe.Detector(
            str(tmp_path / "net.prototxt"), mean=mean, raw_scale=255, context_pad=context_pad
        )
        assert net.crop_mean.shape == (8, 6, 1)
        np.testing.assert_allclose(net.crop_mean, 33 / 255, rtol=1e-6)

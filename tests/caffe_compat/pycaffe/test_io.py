"""``caffe.io``: pictures, blobs and datums."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe_compat.pycaffe as caffe
from caffe_compat.errors import CaffeCompatError
from caffe_compat.pycaffe.io import Transformer
from caffe_compat.pycaffe.proto import caffe_pb2


def test_blobs_of_both_ages_and_of_no_shape() -> None:
    values = np.arange(24, dtype=np.float32)
    new = caffe.io.array_to_blobproto(values.reshape(2, 3, 4), diff=-values.reshape(2, 3, 4))
    assert list(new.shape.dim) == [2, 3, 4]
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(new), values.reshape(2, 3, 4))
    np.testing.assert_array_equal(
        caffe.io.blobproto_to_array(new, return_diff=True), -values.reshape(2, 3, 4)
    )
    old = caffe_pb2.BlobProto(num=1, channels=2, height=3, width=4)
    old.data.extend(values)
    assert caffe.io.blobproto_to_array(old).shape == (1, 2, 3, 4)
    scalar = caffe_pb2.BlobProto()
    scalar.data.append(123)
    assert caffe.io.blobproto_to_array(scalar).shape == ()
    assert caffe.io.blobproto_to_array(scalar) == 123
    double = caffe_pb2.BlobProto()
    double.shape.dim.append(2)
    double.double_data.extend([1 / 3, 2])
    assert caffe.io.blobproto_to_array(double)[0] == 1 / 3
    old.width = 5
    with pytest.raises(ValueError, match=r"24 values, its shape is \(1, 2, 3, 5\)"):
        caffe.io.blobproto_to_array(old)


def test_several_blobs_in_one_message() -> None:
    arrays = [np.ones((2, 3)), np.arange(5.0)]
    found = caffe.io.blobprotovector_str_to_arraylist(
        caffe.io.arraylist_to_blobprotovector_str(arrays)
    )
    for one, other in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def test_datums() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    datum = caffe.io.array_to_datum(pixels)
    assert datum.data == pixels.tobytes()
    assert not datum.HasField("label")
    assert caffe.io.array_to_datum(pixels, label=0).HasField("label")
    assert caffe.io.array_to_datum(pixels, 7).ByteSize() > datum.ByteSize()
    found = caffe.io.datum_to_array(datum)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)
    floats = pixels + 0.5
    np.testing.assert_array_equal(caffe.io.datum_to_array(caffe.io.array_to_datum(floats)), floats)
    with pytest.raises(ValueError, match="3 axes"):
        caffe.io.array_to_datum(pixels[0])
    datum.height = 9
    with pytest.raises(ValueError, match="24 values"):
        caffe.io.datum_to_array(datum)
    datum.encoded = True
    with pytest.raises(CaffeCompatError, match="encoded picture"):
        caffe.io.datum_to_array(datum)


@pytest.mark.parametrize("color", [True, False])
def test_pictures_of_every_kind(tmp_path: Path, color: bool) -> None:
    rng = np.random.default_rng(0)
    bgra = rng.integers(0, 256, (5, 4, 4), np.uint8)
    kinds = {
        "colour": bgra[:, :, :3],
        "grey": bgra[:, :, 0],
        "transparent": bgra,
        "deep": bgra[:, :, :3].astype(np.uint16) * 257,
    }
    for name, values in kinds.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), values)
        found = caffe.io.load_image(str(tmp_path / f"{name}.png"), color)
        assert found.shape == (5, 4, 3 if color else 1)
        assert found.dtype == np.float32
        rgb = np.repeat(bgra[:, :, :1], 3, 2) if name == "grey" else bgra[:, :, 2::-1]
        expected = rgb / 255 if color else (rgb / 255 @ [0.2125, 0.7154, 0.0721])[:, :, None]
        np.testing.assert_allclose(found, expected, atol=2e-4 if name == "grey" else 1e-6)


def test_a_file_that_is_not_there_or_no_picture(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="there is no such file"):
        caffe.io.load_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(CaffeCompatError, match="cannot be read as a picture"):
        caffe.io.load_image(tmp_path / "text.png")


def test_resizing() -> None:
    ramp = np.repeat(np.linspace(0.2, 0.7, 6, dtype=np.float32)[None, :, None], 4, 0)
    wide = caffe.io.resize_image(ramp, (4, 12))
    assert wide.shape == (4, 12, 1)
    # away from the border: straight lines stay straight, pixels are areas
    np.testing.assert_allclose(
        wide[2, 1:-1, 0], 0.2 + 0.1 * ((np.arange(1, 11) + 0.5) / 2 - 0.5), atol=1e-6
    )
    np.testing.assert_allclose(caffe.io.resize_image(ramp, (4, 6)), ramp, atol=1e-6)
    # beyond the border is the lowest value: the outermost pixel is three quarters inside
    np.testing.assert_allclose(wide[2, [0, -1], 0], [0.2, 0.2 + 0.75 * 0.5], atol=1e-6)
    steps = caffe.io.resize_image(ramp, (4, 12), interp_order=0)
    np.testing.assert_allclose(steps[2, :, 0], np.repeat(ramp[2, :, 0], 2), atol=1e-6)
    smooth = caffe.io.resize_image(ramp, (4, 12), interp_order=3)
    assert np.abs(smooth - wide).max() > 1e-3
    flat = caffe.io.resize_image(np.full((3, 3, 3), 0.25), (7, 5))
    np.testing.assert_array_equal(flat, np.full((7, 5, 3), 0.25))
    maps = np.random.default_rng(1).random((4, 5, 19), np.float32)
    large = caffe.io.resize_image(maps, (7, 9))
    assert large.shape == (7, 9, 19)
    np.testing.assert_allclose(
        large[[0, 0, -1, -1], [0, -1, 0, -1]], maps[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-6
    )
    np.testing.assert_allclose(large[2, 2], maps[1, 1], atol=1e-6)


def test_ten_crops() -> None:
    pictures = np.random.default_rng(2).random((2, 5, 7, 3), np.float32)
    crops = caffe.io.oversample(pictures, (3, 4))
    assert crops.shape == (20, 3, 4, 3)
    for number, picture in enumerate(pictures):
        own = crops[10 * number : 10 * number + 10]
        np.testing.assert_array_equal(own[0], picture[:3, :4])
        np.testing.assert_array_equal(own[1], picture[:3, 3:])
        np.testing.assert_array_equal(own[2], picture[2:, :4])
        np.testing.assert_array_equal(own[3], picture[2:, 3:])
        np.testing.assert_array_equal(own[4], picture[1:4, 1:5])
        np.testing.assert_array_equal(own[5:], own[:5, :, ::-1])
    with pytest.raises(ValueError, match="does not fit"):
        caffe.io.oversample(pictures, (6, 4))


def test_a_transformer_step_by_step() -> None:
    picture = np.random.default_rng(3).random((4, 5, 3), np.float32)
    before = picture.copy()
    t = Transformer({"data": (1, 3, 4, 5)})
    np.testing.assert_array_equal(t.preprocess("data", picture), picture)
    t.set_transpose("data", (2, 0, 1))
    t.set_channel_swap("data", (2, 1, 0))
    t.set_raw_scale("data", 255)
    t.set_mean("data", np.array([104, 117, 123]))
    t.set_input_scale("data", 0.5)
    found = t.preprocess("data", picture)
    bgr = picture[:, :, ::-1].transpose(2, 0, 1)
    expected = (bgr * 255 - np.array([104, 117, 123])[:, None, None]) * 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_allclose(t.deprocess("data", found[None]), picture, atol=1e-6)
    large = t.preprocess("data", np.random.default_rng(4).random((9, 11, 3)))
    assert large.shape == (3, 4, 5)


def test_means_of_every_shape() -> None:
    t = Transformer({"data": (10, 3, 4, 5)})
    t.set_transpose("data", (2, 0, 1))
    mean = np.random.default_rng(5).random((3, 4, 5), np.float32)
    t.set_mean("data", mean)
    np.testing.assert_allclose(t.preprocess("data", np.zeros((4, 5, 3))), -mean)
    t.set_mean("data", mean[0])
    np.testing.assert_allclose(t.preprocess("data", np.zeros((4, 5, 3)))[2], -mean[0])
    large = np.random.default_rng(6).random((3, 8, 10)).astype(np.float32)
    t.set_mean("data", large)
    resized = caffe.io.resize_image(large.transpose(1, 2, 0), (4, 5)).transpose(2, 0, 1)
    np.testing.assert_allclose(t.preprocess("data", np.zeros((4, 5, 3))), -resized)
    # halved: inside, the mean of what lies around the middle of two pixels
    halves = large.reshape(3, 4, 2, 5, 2).mean((2, 4))
    np.testing.assert_allclose(resized[:, 1:-1, 1:-1], halves[:, 1:-1, 1:-1], atol=1e-6)
    t.set_mean("data", np.full((3, 8, 8), 2.0))
    np.testing.assert_allclose(t.preprocess("data", np.zeros((4, 5, 3))), np.full((3, 4, 5), -2.0))


def test_a_transformer_says_what_does_not_fit() -> None:
    t = Transformer({"data": (1, 3, 4, 5)})
    for run, said in (
        (lambda: t.set_transpose("data", (1, 0)), "3 axes"),
        (lambda: t.set_channel_swap("data", (1, 0)), "3 channels"),
        (lambda: t.set_mean("data", np.zeros(2)), r"\(2,\) does not fit"),
        (lambda: t.set_mean("data", np.zeros((1, 3, 4, 5))), "does not fit"),
        (lambda: t.preprocess("image", np.zeros((4, 5, 3))), "none of the inputs: data"),
    ):
        with pytest.raises(CaffeCompatError, match=said):
            run()

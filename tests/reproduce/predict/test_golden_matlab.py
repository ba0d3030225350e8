"""imresize and the testing protocol against the original MATLAB code, step by step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reproduce.people.skeletons import LSP_JOINTS, PARTS_14
from reproduce.predict import belief, inputs, protocol
from reproduce.predict.imresize import axis_map, imresize
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import (
    DEMO,
    PROTOCOLS,
    Combination,
    Person,
    Placement,
    Protocol,
    Standing,
)
from tests import measured
from tests.paths import DATA, GOLDEN, cases, listed, needs_data
from tests.pictures import read_picture

_FOLDER = GOLDEN / "matlab"
_RESIZE = _FOLDER / "imresize" / "cases.npz"


def _resize_cases() -> list[Any]:
    if not _RESIZE.exists():
        return listed(iter(()))
    with np.load(_RESIZE) as file:
        return listed((c, f"{c['case']}-{c['name']}") for c in json.loads(str(file["meta"])))


@pytest.mark.parametrize("case", _resize_cases())
def test_imresize(case: dict[str, Any]) -> None:
    with np.load(_RESIZE) as file:
        source, target, out = (file[f"{case['case']}_{name}"] for name in ("in", "target", "out"))
    target = target.ravel()
    ours = imresize(
        source, float(target[0]) if len(target) == 1 else (int(target[0]), int(target[1]))
    )
    assert ours.dtype == out.dtype
    kind = "levels" if out.dtype == np.uint8 else str(out.dtype)
    measured.note(
        f"MATLAB: imresize ({kind})", float(np.abs(ours.astype(float) - out.astype(float)).max())
    )
    if out.dtype == np.uint8:
        np.testing.assert_array_equal(ours, out)
    else:
        np.testing.assert_allclose(
            ours, out, rtol=0, atol=1e-10 if out.dtype == np.float64 else 1e-4
        )


@pytest.mark.golden
def test_taps() -> None:
    if not _RESIZE.exists():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    with np.load(_RESIZE) as file:
        for name in sorted({key.split("_")[0] for key in file.files if key.startswith("taps")}):
            size_in, size_out, scale = file[f"{name}_args"].ravel()
            ours = axis_map(int(size_in), int(size_out), float(scale))
            np.testing.assert_array_equal(ours.index + 1, file[f"{name}_indices"])
            np.testing.assert_allclose(ours.weight, file[f"{name}_weights"], rtol=0, atol=1e-15)


_INPUTS = {
    "down_down": np.arange(64.0).reshape(8, 8),
    "down_down_irregular": np.arange(64.0).reshape(8, 8),
    "up_up_irregular": np.arange(64.0).reshape(8, 8),
    "down_down_small": np.arange(16.0).reshape(4, 4),
    "down_down_x2": np.arange(64.0).reshape(8, 8),
    "down_down_x4": np.arange(64.0).reshape(8, 8),
    "down_down_x3": np.arange(225.0).reshape(15, 15),
    "down_down_x5": np.arange(225.0).reshape(15, 15),
    "up_up_topleft": np.array([[100.0, 1, 0, 100], [10, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
    "up_up_bottomright": np.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 10], [100, 0, 1, 100]]),
}


@pytest.mark.parametrize("path", cases("matlab/imresize/matlab_reference", "*.mat"))
def test_made_by_matlab_itself(path: Path) -> None:
    from scipy.io import loadmat

    name, _, antialias = path.stem.rpartition("_")
    variables = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    (out,) = variables.values()
    if "butterfly" in name:
        source = read_picture(path.with_name("butterfly.png"))[:, :, ::-1] / 255.0
    else:
        source = _INPUTS[name]
    ours = imresize(source, (out.shape[0], out.shape[1]), antialias=antialias == "aa")
    np.testing.assert_allclose(ours, out, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", cases("matlab/imresize/matlab_reference", "lena_123x234_*.png"))
def test_eight_bit_images_made_by_matlab(path: Path) -> None:
    import cv2

    source = read_picture(path.with_name("lena_512x512.png"), cv2.IMREAD_UNCHANGED)
    out = read_picture(path, cv2.IMREAD_UNCHANGED)
    if "double" in path.stem:
        ours = np.clip(np.floor(imresize(source / 255.0, (123, 234)) * 255 + 0.5), 0, 255).astype(
            np.uint8
        )
    else:
        ours = imresize(source, (123, 234))
    np.testing.assert_array_equal(ours, out)


# ---------------------------------------------------------------- the protocol


class _Recorded(Predictor):
    """The closed-form stub network of the recorded runs instead of a real one."""

    def __init__(self, arrays: dict[str, np.ndarray], info: dict[str, Any], how: Protocol) -> None:
        self.arrays, self.info, self.protocol = arrays, info, how
        self.outputs = tuple(f"stage{i + 1}" for i in range(int(info["nstage"])))
        self.batch, self.amp = 99, ""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def parts(self) -> int:
        return int(self.arrays["stub_bias"].shape[1]) - 1

    def forward(self, data: torch.Tensor, names: Any, rects: Any = None) -> torch.Tensor:
        mix, bias = self.arrays["stub_mix"], self.arrays["stub_bias"]
        n, _, box, _ = data.shape
        cells = box // 8
        means = data.numpy().astype(np.float64).reshape(n, 4, cells, 8, cells, 8).mean((3, 5))
        found = []
        for name in names:
            stage = int(name.removeprefix("stage")) - 1
            out = bias[stage][None, :, None, None] + np.einsum("ck,nkyx->ncyx", mix[stage], means)
            if "stub_plant" in self.arrays:
                y, x = np.mgrid[1 : cells + 1, 1 : cells + 1]
                out = 0.3 * out
                for c, (px, py) in enumerate(self.arrays["stub_plant"]):
                    out[:, c] += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 1.5**2))
            out = out.astype(np.float32)
            if (zero := self.info.get("zero_channel")) is not None:
                out[:, int(zero) - 1] = 0
            found.append(torch.from_numpy(out))
        return torch.stack(found)


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("info")))


def _read(path: Path) -> np.ndarray:
    import cv2

    return np.ascontiguousarray(
        read_picture(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[:, :, ::-1]
    )


def _predictor(
    arrays: dict[str, np.ndarray], info: dict[str, Any], released: Protocol
) -> Predictor:
    how = replace(released, boxsize=int(info["boxsize"]), sigma=float(info["sigma"]))
    if info.get("network") != "caffe":
        return _Recorded(arrays, info, how)
    loaded = Predictor.load(
        str(_FOLDER / "pipeline" / "tiny.caffemodel"),
        prototxt=str(_FOLDER / "pipeline" / "tiny_deploy.prototxt"),
    )
    loaded.protocol = how
    return loaded


def _check_maps(
    maps: np.ndarray, arrays: dict[str, np.ndarray], name: str, scale: float = 1.0
) -> None:
    if f"{name}_shape" in arrays:
        assert list(maps.shape) == arrays[f"{name}_shape"].tolist()
    at = maps[:, arrays[f"{name}_sample_y"], arrays[f"{name}_sample_x"]]
    worst = float(np.abs(at - arrays[f"{name}_samples"]).max()) / scale
    measured.note("MATLAB: belief maps in the image, both protocols (absolute, per scale)", worst)
    np.testing.assert_allclose(at, arrays[f"{name}_samples"], rtol=0, atol=1e-5 * scale)
    if f"{name}_sub" in arrays:
        stride = int(arrays[f"{name}_sub_stride"])
        sub = maps[arrays[f"{name}_sub_channels"]][:, ::stride, ::stride]
        np.testing.assert_allclose(sub, arrays[f"{name}_sub"], rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(
        maps.reshape(len(maps), -1).max(1), arrays[f"{name}_max"].ravel(), rtol=0, atol=1e-5 * scale
    )


def _check_way(
    image: np.ndarray,
    placement: Placement,
    predictor: Predictor,
    arrays: dict[str, np.ndarray],
    first: int,
) -> None:
    """Padding, network input, maps and the way back of one person, recorded as ``first`` and so
    on."""
    scaled = inputs.scale_person(image, placement, predictor.protocol)
    data = inputs.network_input(np.stack([one.pixels for one in scaled]), predictor.protocol)
    for number, one in enumerate(scaled, first):
        assert list(one.pad) == arrays["pad"].reshape(-1, 4)[number - 1].tolist()
        if f"padded_{number}" in arrays:
            np.testing.assert_array_equal(one.pixels, arrays[f"padded_{number}"])
    if first == 1:
        stride = max(1, data.shape[-1] // arrays["net_input_1"].shape[-1])
        np.testing.assert_allclose(
            data[0][:, ::stride, ::stride], arrays["net_input_1"], rtol=0, atol=1e-7
        )
        row = data[0, 3, data.shape[-1] // 2 - 1]
        np.testing.assert_allclose(row, arrays["center_map_row"].ravel(), rtol=0, atol=1e-7)
    stages = predictor.forward(data, predictor.outputs)
    size = (image.shape[0], image.shape[1])
    for i, one in enumerate(scaled):
        number = first + i
        for s in range(len(predictor.outputs)):
            if f"net_output_{number}_stage{s + 1}" in arrays:
                np.testing.assert_allclose(
                    stages[s, i], arrays[f"net_output_{number}_stage{s + 1}"], rtol=0, atol=2e-5
                )
        back = belief.to_image(stages[-1, i], one, size).numpy()
        _check_maps(back, arrays, f"resized_{number}")


@needs_data
@pytest.mark.parametrize("path", cases("matlab/pipeline", "apply_*.npz"))
def test_demo_protocol(path: Path) -> None:
    arrays, info = _load(path)
    predictor = _predictor(arrays, info, replace(DEMO, octave=float(info["octave"])))
    image = _read(DATA / info["image"])
    x, y, width, height = arrays["rect"].ravel().tolist()
    box = (x - 1, y - 1, width, height)
    placement = predictor.protocol.placement(image.shape[:2], box)
    np.testing.assert_allclose(placement.center, arrays["center"].ravel(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(placement.scales, arrays["multiplier"].ravel(), rtol=1e-14)
    _check_way(image, placement, predictor, arrays, 1)
    found = predictor.predict(image, box, keep=True)
    assert found.maps is not None
    for stage, maps in enumerate(found.maps):
        _check_maps(maps, arrays, f"heat_stage{stage + 1}")
    np.testing.assert_array_equal(found.joints + 1, arrays["prediction"])


@needs_data
@pytest.mark.parametrize("path", cases("matlab/pipeline", "bench_*.npz"))
def test_benchmark_protocol(path: Path) -> None:
    arrays, info = _load(path)
    np.testing.assert_allclose(protocol.SEARCH, arrays["scale_search"].ravel(), rtol=1e-15)
    released, people = _people(info, arrays)
    predictor = _predictor(arrays, info, released)
    images = [_read(image) for image, _ in people]
    placements = [
        predictor.protocol.placement(image.shape[:2], person)
        for image, (_, person) in zip(images, people, strict=True)
    ]
    np.testing.assert_allclose([p.center for p in placements], arrays["center"], rtol=1e-13)
    np.testing.assert_allclose(
        [s for p in placements for s in p.scales], arrays["scale"].ravel(), rtol=1e-14
    )
    for number, (image, (_, person)) in enumerate(zip(images, people, strict=True)):
        scales = placements[number].scales
        _check_way(image, placements[number], predictor, arrays, 1 + number * len(scales))
        found = predictor.predict(image, person, keep=True)
        assert found.maps is not None
        by_parts = predictor.predict(image, person)  # without keeping maps
        np.testing.assert_array_equal(by_parts.joints, found.joints)
        # sums over seven scales
        _check_maps(found.maps[-1], arrays, f"final_{number + 1}", len(scales))
        if "prediction" in arrays:
            ours = found.joints + 1
            if "source" in info:  # stored in LSP's joint order
                ours = ours[[PARTS_14.index(j) for j in LSP_JOINTS]]
            measured.note(
                "MATLAB: predicted joints (pixels)",
                float(np.abs(ours - arrays["prediction"][:, :, number]).max()),
            )
            np.testing.assert_array_equal(ours, arrays["prediction"][:, :, number])


def _people(
    info: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[Protocol, list[tuple[Path, Person]]]:
    """The recorded run's protocol, and its people as the data set's files have them."""
    from reproduce.people import matfile

    if "source" in info:
        images = [DATA / "lsp" / "images" / f"{s}.jpg" for s in info["source"].split(",")]
        return PROTOCOLS["lsp"], [(image, None) for image in images]
    names = [Path(p).name for p in info["images"]]
    if "FLIC" in info["images"][0]:
        (examples,) = matfile.load(_FOLDER / "datasets" / "flic_examples.mat", "examples")
        tests = [e for e in examples.ravel() if matfile.number(e.istest)]
        assert [matfile.text(e.filepath) for e in tests] == names
        corners = [np.asarray(e.torsobox, np.float64).ravel().tolist() for e in tests]
        return PROTOCOLS["flic"], [
            (DATA / "flic" / "images" / name, (x0 - 1, y0 - 1, x1 - x0, y1 - y0))
            for name, (x0, y0, x1, y1) in zip(names, corners, strict=True)
        ]
    scales = arrays["scale"].reshape(len(names), -1)[:, 0] / protocol.SEARCH[0]
    centers = np.asarray(arrays["center"], np.float64).reshape(-1, 2).tolist()
    return PROTOCOLS["mpi"], [
        (DATA / "mpii" / "images" / name, Standing((x - 1, y - 1), protocol.TARGET_DIST / s))
        for name, (x, y), s in zip(names, centers, scales.tolist(), strict=True)
    ]


@needs_data
@pytest.mark.parametrize("path", cases("matlab/pipeline", "bench_mpi_*.npz"))
def test_mpii_result_file(path: Path, tmp_path: Path) -> None:
    """The test set's result file, field by field as the release writes it."""
    from scipy.io import loadmat

    from reproduce.benchmarks.mpii import MpiiTest

    recorded = path.with_name("bench_mpi_prediction.mat")
    if not recorded.exists():
        pytest.skip(f"no {recorded.name} beside it")
    arrays, info = _load(path)
    test = MpiiTest(DATA, _FOLDER / "datasets" / "mpii_release.mat")
    predictor = _predictor(arrays, info, test.protocol)
    found = [
        predictor.predict(_read(DATA / "mpii" / "images" / image.name), person)
        for image, person in test.people()
    ]
    test.write(tmp_path / "ours.mat", np.stack([test.to_file(one.joints) for one in found]))
    ours, theirs = (loadmat(p)["RELEASE_predicted"] for p in (tmp_path / "ours.mat", recorded))
    _same_struct(ours, theirs, "RELEASE_predicted")


def _same_struct(ours: Any, theirs: Any, where: str) -> None:
    assert ours.shape == theirs.shape, where
    if theirs.dtype.names:
        assert set(ours.dtype.names) == set(theirs.dtype.names), where
        for a, b in zip(ours.ravel(), theirs.ravel(), strict=True):
            for name in theirs.dtype.names:
                _same_struct(a[name], b[name], f"{where}.{name}")
    elif theirs.dtype == object:
        for a, b in zip(ours.ravel(), theirs.ravel(), strict=True):
            _same_struct(a, b, where)
    else:
        np.testing.assert_array_equal(ours, theirs, err_msg=where)


@pytest.mark.golden
def test_units() -> None:
    path = _FOLDER / "pipeline" / "units.npz"
    if not path.exists():
        pytest.skip(f"no recorded outputs at {GOLDEN}")
    with np.load(path) as file:
        units = {key: file[key] for key in file.files}
    box = int(units["pad_box"].ravel()[0])
    for k in range(1, 1 + sum(key.startswith("pad_in_") for key in units)):
        placement = Placement(tuple(units[f"pad_center_{k}"].ravel()), (1.0,))
        (found,) = inputs.scale_person(units[f"pad_in_{k}"], placement, DEMO.at(box))
        assert list(found.pad) == units[f"pad_{k}"].ravel().tolist()
        if units[f"pad_ok_{k}"].ravel()[0]:
            np.testing.assert_array_equal(found.pixels, units[f"pad_out_{k}"])
    for k in range(1, 1 + sum(key.startswith("max_map_") for key in units)):
        maps = units[f"max_map_{k}"][None].astype(np.float32)
        rules: list[tuple[Combination, str]] = [("benchmark", "bench"), ("demo", "apply")]
        for combination, recorded in rules:
            place = belief.find_maximum(maps, combination)[0] + 1
            assert place.tolist() == units[f"max_{recorded}_{k}"].ravel().tolist()
    sigma = float(units["centermap_16_sigma"].ravel()[0])
    np.testing.assert_allclose(
        inputs.center_map(16, sigma), units["centermap_16"], rtol=0, atol=1e-7
    )
    row = inputs.center_map(368, 21.0)[183]
    np.testing.assert_allclose(row, units["centermap_368_row184"].ravel(), rtol=0, atol=1e-7)

"""imresize and the testing protocol against the original MATLAB code, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reproduce.people.skeletons import LSP_JOINTS, PARTS_14
from reproduce.predict import protocol
from reproduce.predict.imresize import axis_map, imresize
from reproduce.predict.protocol import Predictor, Setting, Task
from tests import measured
from tests.paths import DATA, GOLDEN, cases, listed, needs_data

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
    import cv2
    from scipy.io import loadmat

    name, _, antialias = path.stem.rpartition("_")
    variables = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    (out,) = variables.values()
    if "butterfly" in name:
        source = cv2.imread(str(path.with_name("butterfly.png")))[:, :, ::-1] / 255.0
    else:
        source = _INPUTS[name]
    ours = imresize(source, (out.shape[0], out.shape[1]), antialias=antialias == "aa")
    np.testing.assert_allclose(ours, out, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", cases("matlab/imresize/matlab_reference", "lena_123x234_*.png"))
def test_eight_bit_images_made_by_matlab(path: Path) -> None:
    import cv2

    source = cv2.imread(str(path.with_name("lena_512x512.png")), cv2.IMREAD_UNCHANGED)
    out = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
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

    def __init__(self, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        self.arrays, self.info = arrays, info
        self.setting = Setting(int(info["boxsize"]), float(info["sigma"]))
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
        cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[:, :, ::-1]
    )


def _predictor(arrays: dict[str, np.ndarray], info: dict[str, Any]) -> Predictor:
    if info.get("network") != "caffe":
        return _Recorded(arrays, info)
    loaded = Predictor.load(
        str(_FOLDER / "pipeline" / "tiny.caffemodel"),
        prototxt=str(_FOLDER / "pipeline" / "tiny_deploy.prototxt"),
    )
    loaded.setting = Setting(int(info["boxsize"]), float(info["sigma"]))
    return loaded


def _check_maps(
    maps: np.ndarray, arrays: dict[str, np.ndarray], name: str, scale: float = 1.0
) -> None:
    assert (
        list(maps.shape) == arrays[f"{name}_shape"].tolist() if f"{name}_shape" in arrays else True
    )
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


def _check_task(
    task: Task, predictor: Predictor, arrays: dict[str, np.ndarray], first: int
) -> tuple[np.ndarray, list[Any]]:
    prepared = protocol.shrink(task, predictor.setting)
    data = protocol.network_input(prepared.boxes, predictor.setting)
    geometry = prepared.geometry
    for i, (place, box) in enumerate(zip(geometry, prepared.boxes, strict=True)):
        number = first + i
        assert list(place.pad) == arrays["pad"].reshape(-1, 4)[number - 1].tolist()
        if f"padded_{number}" in arrays:
            np.testing.assert_array_equal(box, arrays[f"padded_{number}"])
    if first == 1:
        stride = max(1, data.shape[-1] // arrays["net_input_1"].shape[-1])
        np.testing.assert_allclose(
            data[0][:, ::stride, ::stride], arrays["net_input_1"], rtol=0, atol=1e-7
        )
        row = data[0, 3, data.shape[-1] // 2 - 1]
        np.testing.assert_allclose(row, arrays["center_map_row"].ravel(), rtol=0, atol=1e-7)
    stages = predictor.forward(data, predictor.outputs)
    size = (task.image.shape[0], task.image.shape[1])
    for i, place in enumerate(geometry):
        number = first + i
        for s in range(len(predictor.outputs)):
            if f"net_output_{number}_stage{s + 1}" in arrays:
                np.testing.assert_allclose(
                    stages[s, i], arrays[f"net_output_{number}_stage{s + 1}"], rtol=0, atol=2e-5
                )
        back = protocol.to_image(stages[-1, i], place, size, predictor.setting.boxsize).numpy()
        _check_maps(back, arrays, f"resized_{number}")
    return stages, geometry


@needs_data
@pytest.mark.parametrize("path", cases("matlab/pipeline", "apply_*.npz"))
def test_demo_protocol(path: Path) -> None:
    arrays, info = _load(path)
    predictor = _predictor(arrays, info)
    task = protocol.task_demo(
        _read(DATA / info["image"]),
        arrays["rect"].ravel().tolist(),
        predictor.setting,
        float(info["octave"]),
    )
    np.testing.assert_allclose(task.center, arrays["center"].ravel(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(task.scales, arrays["multiplier"].ravel(), rtol=1e-14)
    _check_task(task, predictor, arrays, 1)
    found = predictor.run(task, keep=True)
    assert found.maps is not None
    for stage, maps in enumerate(found.maps):
        _check_maps(maps, arrays, f"heat_stage{stage + 1}")
    np.testing.assert_array_equal(found.joints, arrays["prediction"])


@needs_data
@pytest.mark.parametrize("path", cases("matlab/pipeline", "bench_*.npz"))
def test_benchmark_protocol(path: Path) -> None:
    arrays, info = _load(path)
    predictor = _predictor(arrays, info)
    np.testing.assert_allclose(protocol.SEARCH, arrays["scale_search"].ravel(), rtol=1e-15)
    tasks = _tasks(info, predictor.setting, arrays)
    np.testing.assert_allclose([t.center for t in tasks], arrays["center"], rtol=1e-13)
    np.testing.assert_allclose(
        [s for t in tasks for s in t.scales], arrays["scale"].ravel(), rtol=1e-14
    )
    for person, task in enumerate(tasks):
        _check_task(task, predictor, arrays, 1 + person * len(task.scales))
        found = predictor.run(task, keep=True)
        assert found.maps is not None
        np.testing.assert_array_equal(
            predictor.run(task).joints, found.joints
        )  # without keeping maps, by parts
        # sums over seven scales
        _check_maps(found.maps[-1], arrays, f"final_{person + 1}", len(task.scales))
        if "prediction" in arrays:
            ours = found.joints
            if "source" in info:  # stored in LSP's joint order
                ours = ours[[PARTS_14.index(j) for j in LSP_JOINTS]]
            measured.note(
                "MATLAB: predicted joints (pixels)",
                float(np.abs(ours - arrays["prediction"][:, :, person]).max()),
            )
            np.testing.assert_array_equal(ours, arrays["prediction"][:, :, person])


def _tasks(info: dict[str, Any], setting: Setting, arrays: dict[str, np.ndarray]) -> list[Task]:
    from reproduce.people import matfile

    if "source" in info:
        return [
            protocol.task_lsp(_read(DATA / "lsp" / "images" / f"{s}.jpg"), setting)
            for s in info["source"].split(",")
        ]
    names = [Path(p).name for p in info["images"]]
    if "FLIC" in info["images"][0]:
        (examples,) = matfile.load(_FOLDER / "datasets" / "flic_examples.mat", "examples")
        tests = [e for e in examples.ravel() if matfile.number(e.istest)]
        assert [matfile.text(e.filepath) for e in tests] == names
        return [
            protocol.task_flic(
                _read(DATA / "flic" / "images" / n), np.asarray(e.torsobox).ravel(), setting
            )
            for n, e in zip(names, tests, strict=True)
        ]
    scales = arrays["scale"].reshape(len(names), -1)[:, 0] / protocol.SEARCH[0]
    return [
        protocol.task_mpi(_read(DATA / "mpii" / "images" / n), c, protocol.TARGET_DIST / s, setting)
        for n, c, s in zip(names, arrays["center"], scales, strict=True)
    ]


@needs_data
@pytest.mark.parametrize("path", cases("matlab/pipeline", "bench_mpi_*.npz"))
def test_mpii_result_file(path: Path, tmp_path: Path) -> None:
    """The test set's result file, field by field as the release writes it."""
    from scipy.io import loadmat

    from reproduce.benchmarks import testsets

    recorded = path.with_name("bench_mpi_prediction.mat")
    if not recorded.exists():
        pytest.skip(f"no {recorded.name} beside it")
    arrays, info = _load(path)
    predictor = _predictor(arrays, info)
    test = testsets.mpi_test(
        _FOLDER / "datasets" / "mpii_release.mat", predictor.setting, protocol.SEARCH
    )
    images = [DATA / "mpii" / "images" / person.image.name for person in test.people]
    tasks = [
        protocol.task_mpi(_read(image), person.objpos, person.scale, predictor.setting)
        for image, person in zip(images, test.people, strict=True)
        if person.objpos is not None
    ]
    test.write(
        tmp_path / "ours.mat",
        np.stack([test.to_file(predictor.run(task).joints) for task in tasks]),
    )
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
        padded, pad = protocol.pad_around(
            units[f"pad_in_{k}"], box, tuple(units[f"pad_center_{k}"].ravel())
        )
        assert list(pad) == units[f"pad_{k}"].ravel().tolist()
        if units[f"pad_ok_{k}"].ravel()[0]:
            np.testing.assert_array_equal(padded, units[f"pad_out_{k}"])
    for k in range(1, 1 + sum(key.startswith("max_map_") for key in units)):
        maps = units[f"max_map_{k}"][None].astype(np.float32)
        assert (
            protocol.find_maximum(maps, "benchmark")[0].tolist()
            == units[f"max_bench_{k}"].ravel().tolist()
        )
        assert (
            protocol.find_maximum(maps, "demo")[0].tolist()
            == units[f"max_apply_{k}"].ravel().tolist()
        )
    sigma = float(units["centermap_16_sigma"].ravel()[0])
    np.testing.assert_allclose(
        protocol.center_map(16, sigma), units["centermap_16"], rtol=0, atol=1e-7
    )
    row = protocol.center_map(368, 21.0)[183]
    np.testing.assert_allclose(row, units["centermap_368_row184"].ravel(), rtol=0, atol=1e-7)

"""The measurement for a machine with a GPU: packed data, sections that fail or run out of time, and
all of it at its smallest size on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from caffe_compat import Net
from caffe_compat.errors import CaffeCompatError, DataError
from reproduce.experiments import plans
from reproduce.network import netgen
from reproduce.people import lsp_files
from reproduce.people.annotation import Annotation
from reproduce.records.store import LMDBStore
from tests.paths import GOLDEN, ROOT
from tests.people import leeds
from tests.tools.loaded import tool


def _person(scale: float) -> Annotation:
    joints = np.array([[20.0, 30.0, 1.0], [-1.0, -1.0, 0.0]])
    return Annotation("a.jpg", "LEEDS", joints, np.array([50.0, 60.0]), scale, (300, 400))


def test_a_picture_is_as_large_as_the_network_sees_it() -> None:
    """The painted pixel is where the joint says, in the smaller picture too."""
    data = tool("gpu_data")
    image = np.zeros((400, 300, 3), np.uint8)
    image[28:33, 18:23] = 255
    layer = data.DataConfig()
    most = layer.target_dist * layer.scale_max
    small, picture = data.shrunk(_person(2 * most), image)
    assert small.size == (150, 200)
    assert picture.shape == (200, 150, 3)
    assert small.scale == pytest.approx(most)
    rows, columns = np.nonzero(picture[:, :, 0] > 127)
    np.testing.assert_allclose([columns.mean(), rows.mean()], small.joints[0, :2], atol=0.5)
    np.testing.assert_array_equal(small.joints[1], [-1, -1, 0])  # nobody annotated it
    np.testing.assert_allclose(small.objpos, [24.75, 29.75])


@pytest.mark.parametrize("scale", [0.5, 1.5, 0.0])
def test_a_picture_is_never_enlarged(scale: float) -> None:
    image = np.zeros((400, 300, 3), np.uint8)
    person = _person(scale)
    small, picture = tool("gpu_data").shrunk(person, image)
    assert small is person
    assert picture is image


def test_packed_data_come_back(tmp_path: Path) -> None:
    data = tool("gpu_data")
    folder = leeds(tmp_path / "data")
    made = data.pack(folder, tmp_path / "leeds.tar.gz")
    assert made == {"bytes": (tmp_path / "leeds.tar.gz").stat().st_size, "trained": 12, "tested": 2}
    packed = data.unpack(tmp_path / "leeds.tar.gz", tmp_path / "out")
    assert (packed.trained, packed.tested) == (12, 2)
    store = LMDBStore(packed.records)
    assert len(store) == 12
    scales = sorted(store.record(i).annotation.scale for i in range(12))
    own = sorted(a.scale for a in lsp_files.read_training(folder, skip_missing=True))
    layer = data.DataConfig()
    wanted = np.minimum(own, layer.target_dist * layer.scale_max)
    np.testing.assert_allclose(scales, wanted, rtol=0.01)  # pictures have whole sizes
    for path in (folder / "lsp" / "images").iterdir():
        assert (packed.folder / "lsp" / "images" / path.name).read_bytes() == path.read_bytes()
    # as little as fits
    kept = [*(folder / "lsp").rglob("*"), folder / "lspet" / "joints.mat"]
    fixed = sum(path.stat().st_size for path in kept if path.is_file())
    few = data.pack(folder, tmp_path / "few.tar.gz", fixed + 20_000)
    assert 0 < few["trained"] < 12
    with pytest.raises(DataError, match="larger than the limit"):
        data.pack(folder, tmp_path / "none.tar.gz", 1000)
    assert not (tmp_path / "none.tar.gz").exists()


def test_what_is_no_packed_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nothing")
    with pytest.raises(DataError, match="is no file of measure_gpu") as caught:
        tool("gpu_data").unpack(tmp_path / "a", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_without_a_gpu_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = tool("measure_gpu")
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["measure_gpu.py", "--out", str(tmp_path / "out")])
    assert gpu.main() == 2
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "nothing was measured on a GPU" in said
    assert not (tmp_path / "out").exists()


def _run(gpu: Any, out: Path, lines: list[str]) -> Any:
    sizes = replace(gpu.SMOKE, seconds=0.4)
    return gpu.Run("cpu", sizes, out, None, None, None, lines.append)


def test_a_section_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = tool("measure_gpu")
    calls: list[str] = []

    def good(run: Any) -> None:
        calls.append("good")
        run.found["speed"] = 3.0

    def bad(run: Any) -> None:
        calls.append("bad")
        run.found["half"] = 1
        raise ValueError("the device is gone\nand more")

    def slow(run: Any) -> None:
        calls.append("slow")
        for number in range(1000):
            run.check_time()
            run.found[f"part {number}"] = run.before["good"]["speed"]
            time.sleep(0.02)

    sections = {"good": (good, 0.2), "bad": (bad, 0.2), "slow": (slow, 0.2), "last": (good, 1.0)}
    monkeypatch.setattr(
        gpu, "SECTIONS", {n: tool("gpu_sections").Section(*s) for n, s in sections.items()}
    )
    lines: list[str] = []
    content = gpu.measure(_run(gpu, tmp_path, lines), list(sections), again=False)["sections"]
    assert json.loads((tmp_path / "measured.json").read_text())["sections"].keys() == content.keys()
    states = {name: one["state"] for name, one in content.items()}
    assert states == {
        "good": "complete",
        "bad": "failed",
        "slow": "out of time",
        "last": "complete",
    }
    assert content["bad"]["why"] == "ValueError: the device is gone"
    assert content["bad"]["found"] == {"half": 1}
    assert content["slow"]["found"]["part 0"] == 3.0
    assert any("Traceback" in line for line in lines)
    calls.clear()
    gpu.measure(_run(gpu, tmp_path, lines), list(sections), again=False)
    assert calls == ["bad", "slow"]  # what is complete is kept
    calls.clear()
    gpu.measure(_run(gpu, tmp_path, lines), ["good"], again=True)
    assert calls == ["good"]


def test_numbers_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    gpu = tool("measure_gpu")
    (tmp_path / "measured.json").write_text('{"gpu": "another", "sections": {}}')
    with pytest.raises(CaffeCompatError, match="was measured on another"):
        gpu.measure(_run(gpu, tmp_path, []), ["peak"], again=False)


def test_a_report_of_tests_is_counted() -> None:
    text = """<testsuites><testsuite>
      <testcase classname="a" name="one"/>
      <testcase classname="a" name="two"><failure message="too far&#10;away"/></testcase>
      <testcase classname="a" name="three"><skipped message="no data"/></testcase>
      <testcase classname="a" name="four"><error message=""/></testcase>
    </testsuite></testsuites>"""
    found = tool("gpu_sections").counted(ElementTree.fromstring(text))
    assert (found["passed"], found["failed"]) == (1, 2)
    assert found["skipped"] == {"no data": 1}
    assert found["failures"] == {"a::two": "too far", "a::four": ""}


@pytest.mark.long  # the program must have begun, on a loaded machine too
def test_a_program_is_interrupted_when_the_time_is_over(tmp_path: Path) -> None:
    until = tool("gpu_sections").until_time_is_over
    quick = [sys.executable, "-c", "print('done')"]
    assert until(quick, tmp_path / "log", 60) == 0
    # whoever starts the tests in the background of a shell has them ignore SIGINT
    heed = "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    slow = f"{heed}\ntry:\n  time.sleep(60)\nexcept KeyboardInterrupt:\n  print('kept')"
    assert until([sys.executable, "-c", slow], tmp_path / "log", 8) is None
    assert "kept" in (tmp_path / "log").read_text()


def test_a_step_counts_three_forward_passes(tmp_path: Path) -> None:
    """Forward, gradients of inputs and gradients of weights, beside the peak where there is one."""
    gpu = tool("measure_gpu")
    run = _run(gpu, tmp_path, [])
    run.until = time.monotonic() + 60
    run.before["peak"] = {"fp32": 2e9}
    tool("gpu_sections").training_step(run)
    config = netgen.CPMConfig(**run.sizes.step)
    forward_pass = plans.operations_of(Net(netgen.deploy(config)).graph)
    step = 3 * forward_pass * run.sizes.step_batch
    for found in run.found.values():
        assert found["operations_per_s"] * found["seconds"] == pytest.approx(step)
    assert run.found["fp32"]["of_peak"] == run.found["fp32"]["operations_per_s"] / 2e9
    assert run.found["bf16"]["of_peak"] is None


@pytest.mark.slow
@pytest.mark.golden
def test_everything_at_its_smallest(tmp_path: Path) -> None:
    """The very code of a GPU, on the CPU."""
    script = str(ROOT / "tools" / "measure_gpu.py")
    packed = tmp_path / "leeds.tar.gz"
    pack = [sys.executable, script, "--pack", str(packed), "--data"]
    pack.append(str(leeds(tmp_path / "data", tested=10)))
    subprocess.run(pack, check=True, cwd=ROOT)
    out = tmp_path / "out"
    command = [sys.executable, script, "--smoke", "--out", str(out), "--data", str(packed)]
    if GOLDEN.is_dir():
        command += ["--golden", str(GOLDEN)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    gpu = tool("measure_gpu")
    sections = json.loads((out / "measured.json").read_text())["sections"]
    assert list(sections) == list(gpu.SECTIONS)
    wrong = {name: one["why"] for name, one in sections.items() if one["state"] != "complete"}
    if not GOLDEN.is_dir():  # then that section says that there is nothing to compare with
        assert "are they there" in wrong.pop("golden")
    assert not wrong, done.stdout
    assert done.returncode == (0 if GOLDEN.is_dir() else 1)
    ways = {name.split()[-1] for name in sections["forward"]["found"]}
    assert ways == {"eager", "channels_last", "compile"}
    for name, one in sections["forward"]["found"].items():
        assert "failed" not in one, (name, one)
        assert one["difference_of_largest"] < (0.1 if "bf16" in name else 1e-5), name
        assert one["of_peak"] > 0
    for one in sections["training_step"]["found"].values():
        assert one["of_peak"] > 0
    assert sections["bf16_cost"]["found"]["people"] == 2
    assert sections["first_iterations"]["found"]["ended"] == "exit code 0"
    assert "nothing was measured on a GPU" in done.stdout

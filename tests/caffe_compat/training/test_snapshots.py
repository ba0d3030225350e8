"""Snapshots as files: byte for byte Caffe's own, and named as Caffe names them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caffe_compat import CaffeCompatError, Weights, parse_net, read_solver, read_weights
from caffe_compat.definition.prototxt import parse_solver
from caffe_compat.errors import PrototxtError, SchemaError, SolverError, WeightError
from caffe_compat.network.net import Net
from caffe_compat.training.snapshots import prefix_of, read_state
from caffe_compat.training.solver import Solver
from caffe_compat.weights.model import LayerBlobs, overlaid
from caffe_compat.weights.wire import Blob, walk
from caffe_compat.weights.write import write_weights
from tests.paths import cases, reported

NET = """
layer { name: "d" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } shape { dim: 2 dim: 3 dim: 4 dim: 4 }
                     data_filler { type: "gaussian" } data_filler { value: 0.5 } } }
layer { name: "slope" type: "PReLU" bottom: "x" top: "p" prelu_param { channel_shared: true } }
layer { name: "gain" type: "Scale" bottom: "p" top: "g" scale_param { num_axes: 0 } }
layer { name: "shift" type: "Bias" bottom: "g" top: "s" bias_param { num_axes: 0 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "s" bottom: "t" top: "loss" }
"""
SETTINGS = (
    'net: "net.prototxt"',
    "base_lr: 0.1",
    "momentum: 0.9",
    'lr_policy: "fixed"',
    "max_iter: 2",
)
SOLVER = " ".join(SETTINGS)


def _again(folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Restore a recorded snapshot and write it anew: (recorded state, our model, our state)."""
    state = next(folder.glob("*.solverstate*"))
    solver = Solver(read_solver(folder / "solver.prototxt"), root=folder)
    solver.restore(state)
    monkeypatch.chdir(target)
    return state, *solver.snapshot(str(target / solver.spec.message.snapshot_prefix))


def _without(path: Path, skip: int) -> list[tuple[int, bytes]]:
    """A binary message's fields but one, in order."""
    data = memoryview(path.read_bytes())
    fields = walk(data, 0, len(data))
    return [(f.number, bytes(data[f.start : f.stop])) for f in fields if f.number != skip]


def _blobs(path: Path) -> dict[str, list[bytes]]:
    """The serialized blobs of a binary model's layers that have any."""
    data = memoryview(path.read_bytes())
    found: dict[str, list[bytes]] = {}
    for layer in walk(data, 0, len(data)):
        if layer.number == 100:
            fields = list(walk(data, layer.start, layer.stop))
            name = next(bytes(data[f.start : f.stop]).decode() for f in fields if f.number == 1)
            blobs = [bytes(data[f.start : f.stop]) for f in fields if f.number == 7]
            if blobs:
                found[name] = blobs
    return found


def _layout(path: Path) -> dict[str, Any]:
    """Everything that Caffe's HDF5 reader can see of a file: types, spaces, storage, values."""
    found: dict[str, Any] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Group):
            found[name] = sorted(item)
            return
        kind, space = item.id.get_type(), item.id.get_space()
        text = (
            (kind.get_strpad(), kind.get_cset(), kind.is_variable_str())
            if isinstance(kind, h5py.h5t.TypeStringID)
            else ()
        )
        found[name] = (
            kind.get_class(),
            item.dtype.str[:2],
            text if text else kind.get_size(),
            space.get_simple_extent_type(),
            item.shape,
            item.id.get_create_plist().get_layout(),
            len(item.attrs),
            b"" if text else np.asarray(item[()]).tobytes(),
        )

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("path", cases("solver", "*/*.solverstate"))
def test_binary_snapshot_has_the_bytes_of_caffes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, model, state = _again(path.parent, tmp_path, monkeypatch)
    assert _without(state, 2) == _without(recorded, 2)  # field 2 names the model file
    assert _blobs(model) == _blobs(next(path.parent.glob("*.caffemodel")))


@pytest.mark.parametrize("path", cases("solver", "*/*.solverstate.h5"))
def test_hdf5_snapshot_has_the_layout_of_caffes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, model, state = _again(path.parent, tmp_path, monkeypatch)
    assert _layout(state) == _layout(recorded)
    ours, caffes = _layout(model), _layout(next(path.parent.glob("*.caffemodel.h5")))
    # Caffe also leaves empty groups for the copies of blobs that it makes itself
    assert ours.keys() >= {name for name in caffes if "_split" not in name}
    assert all(ours[name] == caffes[name] for name in ours if name != "data")


def test_learned_net_ends_with_a_zero(tmp_path: Path) -> None:
    """Caffe's reader takes the length from the type, which must count the terminating zero."""
    solver = _solver(tmp_path, "snapshot_format: HDF5 snapshot_prefix: 's'")
    model, state = solver.snapshot()
    with h5py.File(state, "r") as file:
        kind = file["learned_net"].id.get_type()
        assert kind.get_size() == len(str(model)) + 1
        assert kind.get_strpad() == h5py.h5t.STR_NULLTERM
    assert read_state(state).learned_net == str(model)


def test_a_state_that_names_no_model(tmp_path: Path) -> None:
    """Caffe takes it; the model is then the one of the matching name."""
    solver = _solver(tmp_path, "snapshot_format: HDF5 snapshot_prefix: 's'")
    _, state = solver.snapshot()
    with h5py.File(state, "a") as file:
        del file["learned_net"]
    assert read_state(state).learned_net == ""
    _solver(tmp_path, "").restore(state)
    state.with_name("s_iter_0.caffemodel.h5").unlink()
    with pytest.raises(SolverError, match=r"looked for [^,]*s_iter_0\.caffemodel\.h5\)"):
        _solver(tmp_path, "").restore(state)


def test_snapshots_that_cannot_be_written_show_before_the_training(tmp_path: Path) -> None:
    """Settings of the release's Caffe and of upstream's in one net."""
    fork = NET.replace("dummy_data_param", "transform_param { stride: 8 } dummy_data_param", 1)
    clip = 'name: "c" type: "Clip" bottom: "x" top: "c" clip_param { min: 0 max: 1 }'
    both = f"{fork} layer {{ {clip} }}"
    assert fork != NET
    _solver(tmp_path, "", fork)
    with pytest.raises(SchemaError, match=r"no Caffe has all settings .* snapshot_format: HDF5"):
        _solver(tmp_path, "", both)
    _solver(tmp_path, "snapshot_format: HDF5", both).snapshot()


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_parameters_without_axes_stay_so(tmp_path: Path, form: str) -> None:
    solver = _solver(tmp_path, f"snapshot_format: {form} snapshot_prefix: 's'")
    solver.step()
    model, state = solver.snapshot()
    weights = read_weights(model)
    assert {name: weights[name][0].shape for name in weights.names} == {
        "slope": (),
        "gain": (),
        "shift": (),
    }
    assert [a.shape for a in read_state(state).history] == [(), (), ()]
    again = _solver(tmp_path, "")
    again.restore(state)
    assert again.step().loss == solver.step().loss


def test_shared_parameters_stand_once_in_hdf5(tmp_path: Path) -> None:
    text = """
    input: "x" input_shape { dim: 1 dim: 2 }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
            inner_product_param { num_output: 2 } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
            inner_product_param { num_output: 2 } }
    """
    net = Net(parse_net(text))
    write_weights(tmp_path / "m.h5", net.weights(), net.graph.spec)
    with h5py.File(tmp_path / "m.h5", "r") as file:
        assert {name: sorted(file["data"][name]) for name in file["data"]} == {
            "input": [],
            "a": ["0", "1"],
            "b": ["1"],
        }


def _solver(folder: Path, more: str, net: str = NET) -> Solver:
    (folder / "net.prototxt").write_text(net)
    usual = [s for s in SETTINGS if not re.search(rf"\b{s.split()[0]}", more)]
    (folder / "my.prototxt").write_text(" ".join([*usual, more]))
    return Solver(read_solver(folder / "my.prototxt"), root=folder)


def test_prefix_without_a_definition_of_it(tmp_path: Path) -> None:
    solver = _solver(tmp_path, "")
    assert solver.snapshot()[0] == tmp_path / "my_iter_0.caffemodel"


def test_prefix_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "snap").mkdir()
    solver = _solver(tmp_path, "snapshot_prefix: 'snap'")
    assert solver.snapshot()[1] == tmp_path / "snap" / "my_iter_0.solverstate"


def test_prefix_with_a_slash_at_its_end(tmp_path: Path) -> None:
    """A folder that is not there when the training begins is not a folder to Caffe."""
    solver = _solver(tmp_path, "snapshot_prefix: 'new/'")
    assert solver.snapshot()[0] == tmp_path / "new" / "_iter_0.caffemodel"


def test_prefix_of_a_definition_without_a_file() -> None:
    with pytest.raises(SolverError, match="no snapshot_prefix"):
        prefix_of(parse_solver(SOLVER), Path("."))
    with pytest.raises(SolverError, match="zero byte"):
        prefix_of(parse_solver(SOLVER + ' snapshot_prefix: "a\\000b"'), Path("."))


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("field", ["iteration", "current_step"])
def test_negative_numbers_in_a_state(tmp_path: Path, form: str, field: str) -> None:
    solver = _solver(tmp_path, f"snapshot_format: {form}")
    setattr(solver, field, -5 if form == "HDF5" else 2**64 - 5)  # as the wire has it
    _, state = solver.snapshot()
    with pytest.raises(SolverError, match="is -5, it must be at least 0"):
        solver.restore(state)


def test_multistep_goes_on_from_the_state(tmp_path: Path) -> None:
    """One step at most in an iteration, from the step that the state holds."""
    steps = "lr_policy: 'multistep' gamma: 0.5 stepvalue: "
    solver = _solver(tmp_path, f"{steps} 1 stepvalue: 1")
    rates = [solver.step().rate / solver.spec.message.base_lr for _ in range(4)]
    assert rates == [1, 0.5, 0.25, 0.25]
    _, state = solver.snapshot()
    later = _solver(tmp_path, f"{steps} 100 stepvalue: 4 stepvalue: 9")
    later.restore(state)
    assert later.rate == rates[-1] * solver.spec.message.base_lr
    assert later.snapshot()[1].read_bytes() == state.read_bytes()


@pytest.mark.parametrize(
    ("settings", "rate", "note"),
    [
        ("lr_policy: 'sigmoid' gamma: 0.1 stepsize: 100000", 0, ""),
        ("lr_policy: 'fixed' stepvalue: 3 stepvalue: 1", 1, "stepvalue has no effect"),
        ("lr_policy: 'multistep' gamma: 0.5", 1, "lr_policy multistep has no effect"),
        ("lr_policy: 'fixed' rms_decay: 0.98", 1, "rms_decay has no effect with type SGD"),
    ],
)
def test_what_caffe_runs_is_run(tmp_path: Path, settings: str, rate: float, note: str) -> None:
    """A setting without an effect is noted."""
    solver = _solver(tmp_path, settings)
    assert solver.step().rate == rate * solver.spec.message.base_lr
    assert any(line.startswith(note) for line in solver.warnings) == bool(note)


def _model(folder: Path, name: str, **values: float) -> None:
    """A model of :data:`NET` with these values in its layers, and no other layers."""
    net = Net(parse_net(NET), phase="TRAIN")
    layers = [LayerBlobs(n, "", (Blob(np.array(v, np.float32)),)) for n, v in values.items()]
    write_weights(folder / name, Weights(tuple(layers)), net.graph.spec)


def _values(solver: Solver) -> dict[str, float]:
    return {n.layer.name: float(t.detach()) for n, _, t in solver.net.owned_params()}


def test_weights_field_lists_files_and_the_last_counts(tmp_path: Path) -> None:
    _model(tmp_path, "a.caffemodel", slope=0.1, gain=2.0)
    _model(tmp_path, "b.caffemodel", gain=3.0)
    _model(tmp_path, "c.caffemodel", shift=4.0)
    solver = _solver(tmp_path, "weights: 'a.caffemodel, b.caffemodel' weights: 'c.caffemodel'")
    assert _values(solver) == pytest.approx({"slope": 0.1, "gain": 3.0, "shift": 4.0})


def test_given_weights_stand_in_for_the_weights_field(tmp_path: Path) -> None:
    _model(tmp_path, "a.caffemodel", gain=2.0)
    _model(tmp_path, "b.caffemodel", slope=0.75)
    _solver(tmp_path, "weights: 'a.caffemodel'")
    spec = read_solver(tmp_path / "my.prototxt")
    solver = Solver(spec, root=tmp_path, weights=read_weights(tmp_path / "b.caffemodel"))
    assert _values(solver) == {"slope": 0.75, "gain": 1.0, "shift": 0.0}


def test_weights_field_that_names_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"gone\.caffemodel"):
        _solver(tmp_path, "weights: 'gone.caffemodel'")


def test_overlaid_keeps_layers_of_one_name_apart() -> None:
    def layer(name: str, value: float) -> LayerBlobs:
        return LayerBlobs(name, "", (Blob(np.full(1, value)),))

    both = overlaid(Weights((layer("a", 1), layer("a", 2))), Weights((layer("a", 3),)))
    assert [entry.blobs[0].data[0] for entry in both.layers] == [3, 2]


def test_states_of_training_and_tests(tmp_path: Path) -> None:
    """Level and stages of the solver choose layers; the net's own level holds where it says
    nothing."""
    net = (
        NET
        + """
    state { level: 2 }
    layer { name: "deep" type: "Power" bottom: "s" top: "deep" include { min_level: 2 } }
    layer { name: "only" type: "Power" bottom: "s" top: "only" include { stage: "val" } }
    """
    )
    solver = _solver(tmp_path, "", net)
    assert {"deep", "only"} & set(solver.net.graph.blobs) == {"deep"}
    solver = _solver(tmp_path, "train_state { level: 1 stage: 'val' }", net)
    assert {"deep", "only"} & set(solver.net.graph.blobs) == {"only"}
    tests = "test_iter: 1 test_interval: 1 test_state { stage: 'val' }"
    solver = _solver(tmp_path, tests, net)
    assert set(solver.test()[0]) >= {"only[0]", "deep[0]", "loss"}


def test_test_compute_loss_adds_the_loss(tmp_path: Path) -> None:
    solver = _solver(tmp_path, "test_iter: 2 test_interval: 1 test_compute_loss: true")
    result = solver.test()[0]
    assert result["test loss"] == pytest.approx(result["loss"])


_TESTED = "test_iter: 1 test_interval: 1 "
_ONLY_IN_TRAIN = """
layer { name: "owner" type: "Scale" bottom: "x" top: "o" param { name: "w" }
        scale_param { num_axes: 0 } include { phase: TRAIN } }
"""


def test_a_test_net_has_what_a_layer_of_the_training_net_owns(tmp_path: Path) -> None:
    net = NET.replace('top: "g"', 'top: "g" param { name: "w" }')
    solver = _solver(
        tmp_path,
        _TESTED,
        net.replace('layer { name: "gain"', _ONLY_IN_TRAIN + 'layer { name: "gain"'),
    )
    solver.step()
    loss = solver.test()[0]["loss"]
    ((tested, _, _),) = solver._tests
    values = {node.layer.name: float(t.detach()) for node, _, t in tested.owned_params()}
    assert values["gain"] == _values(solver)["owner"] != 1
    assert np.isfinite(loss)


@pytest.mark.parametrize("other", ["num_axes: 1", "num_axes: 0 bias_term: true"])
def test_layers_of_one_name_that_do_not_fit_each_other(tmp_path: Path, other: str) -> None:
    """Caffe tells when it tests first; here the training does not begin."""
    (tmp_path / "test.prototxt").write_text(NET.replace("num_axes: 0", other, 1))
    with pytest.raises(SolverError, match="layer 'gain': the test net needs parameters of"):
        _solver(tmp_path, _TESTED + "test_net: 'test.prototxt'")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("test_iter: 1", "test_interval"),
        ("test_iter: 1 test_interval: 1 test_state {} test_state {}", "test_state"),
        ("test_net: 'net.prototxt'", "test_iter"),
        ("train_state { phase: TEST }", "train_state"),
        ("net_param { name: 'n' }", "net"),
        ("type: 'RMSProp' momentum: 0 rms_decay: 1.5", "rms_decay"),
    ],
)
def test_what_caffe_refuses_of_a_solver(tmp_path: Path, more: str, field: str) -> None:
    with pytest.raises(PrototxtError) as error:
        _solver(tmp_path, more)
    assert error.value.field == field
    assert error.value.line == (1 if field in more else 0)


@pytest.mark.parametrize("path", reported("solver", "*.prototxt"))
def test_reported_solvers(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trains and leaves its snapshot under Caffe's name, or is refused in one sentence."""
    for file in path.parent.glob("*.prototxt"):
        shutil.copy(file, tmp_path)
    shutil.copy(path.parent / "d.h5", tmp_path)
    shutil.copy(path.parent / "list.txt", tmp_path)
    (tmp_path / "snapdir").mkdir()
    monkeypatch.chdir(tmp_path)
    try:
        solver = Solver(read_solver(path.name))
    except CaffeCompatError as error:
        assert "\n" not in str(error)
        return
    solver.step()
    _, state = solver.snapshot()
    prefix = solver.spec.message.snapshot_prefix or path.stem
    prefix += path.stem if os.path.isdir(prefix) and prefix == "snapdir/" else ""
    ending = ".h5" if solver.spec.message.snapshot_format == 0 else ""
    assert os.path.exists(f"{prefix}_iter_1.caffemodel{ending}")
    assert str(state) == f"{prefix}_iter_1.solverstate{ending}"


def test_gradients_of_no_parameters_are_clipped_to_nothing(tmp_path: Path) -> None:
    net = NET.split('layer { name: "slope')[0] + (
        'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "loss" }'
    )
    (tmp_path / "net.prototxt").write_text(net)
    solver = Solver(parse_solver(f"{SOLVER} clip_gradients: 1"), root=tmp_path)
    solver.step()
    assert solver.iteration == 1

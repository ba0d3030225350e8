"""A training that begins anew under the snapshot prefix of an earlier one loses none of its files,
and what goes on goes on from the right snapshot."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from caffe_compat.files import TargetError
from caffe_compat.training.snapshots import read_state
from caffe_compat.training.solver import Solver, Step
from reproduce.cli import train
from reproduce.runtime.locks import hold
from reproduce.train.earlier import Moved, is_of, move_aside

_NET = """
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 } data_filler { type: "gaussian" } } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "a" inner_product_param {
  num_output: 4 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "y" top: "loss" }
"""


def _solver(folder: Path, suffix: str = "", **settings: object) -> Path:
    """A solver of a very small network: 4 iterations, a snapshot after each second one."""
    (folder / "net.prototxt").write_text(_NET)
    fields: dict[str, object] = {
        "net": '"net.prototxt"',
        "base_lr": 0.01,
        "lr_policy": '"fixed"',
        "max_iter": 4,
        "snapshot": 2,
        "display": 1,
        "snapshot_prefix": f'"snap/pose{suffix}"',
    }
    path = folder / f"solver{suffix}.prototxt"
    path.write_text("\n".join(f"{k}: {v}" for k, v in {**fields, **settings}.items()))
    return path


def _train(*words: object) -> Result:
    words = (*words, "--workers", "0", "--device", "cpu")
    return CliRunner().invoke(train.main, [str(word) for word in words])


def _finished(*words: object) -> str:
    result = _train(*words)
    assert result.exit_code == 0, result.output
    return result.output


def _contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, those that locks use aside."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_folder_as_prefix_is_one_prefix_from_the_beginning(tmp_path: Path) -> None:
    """Though the first snapshot makes the folder."""
    solver = _solver(tmp_path, snapshot_prefix='"snaps/"')
    _finished(solver)
    names = {path.name for path in (tmp_path / "snaps").iterdir() if path.name[0] != "."}
    states = {f"solver_iter_{n}.{kind}" for n in (2, 4) for kind in ("caffemodel", "solverstate")}
    assert names == {"solver_log.jsonl", *states}


def test_a_snapshot_takes_the_place_of_the_solvers_own_weights(tmp_path: Path) -> None:
    """They may be gone, or moved aside by the training itself, which then is said."""
    _finished(_solver(tmp_path))
    first = tmp_path / "snap" / "pose_iter_4.caffemodel"
    solver = _solver(tmp_path, weights='"snap/pose_iter_4.caffemodel"')
    begun = _finished(solver, "--max-iter", 2)
    assert "1 layer(s) took their weights from the file: fc" in begun
    assert "pose_iter_4.caffemodel" in next(
        line for line in begun.splitlines() if "moved to" in line
    )
    assert not first.exists()
    assert "going on from" in _finished(solver, "--snapshot", "latest")


def _interrupted_after(iterations: int, monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """What a training says that gets Ctrl-C in its iteration of this number, counted from 1."""
    step = Solver.step

    def stopping(self: Solver) -> Step:
        done = step(self)
        if self.iteration == iterations:
            os.kill(os.getpid(), signal.SIGINT)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Solver, "step", stopping)
        return _finished(*words)


def _iterations(log: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in log.read_text().splitlines()]


@pytest.mark.parametrize(("form", "ending"), [("BINARYPROTO", ""), ("HDF5", ".h5")])
def test_a_second_training_moves_the_first_one_aside(
    tmp_path: Path, form: str, ending: str
) -> None:
    solver = _solver(tmp_path, snapshot_format=form)
    assert "earlier" not in _finished(solver)
    first = _contents(tmp_path / "snap")
    assert set(first) == {
        *(
            f"pose_iter_{n}.{kind}{ending}"
            for n in (2, 4)
            for kind in ("caffemodel", "solverstate")
        ),
        "pose_log.jsonl",
    }
    (tmp_path / "snap" / "pose_2_iter_9.caffemodel").write_text("of another prefix")
    said = _finished(_solver(tmp_path, snapshot_format=form, random_seed=7))
    assert said.count("earlier") == 2  # one line: its words, and the folder's name
    assert (
        f"5 files of an earlier training were moved to {tmp_path}/snap/pose_earlier1 "
        "(--snapshot latest would have gone on from iteration 4)\n" in said
    )
    assert _contents(tmp_path / "snap" / "pose_earlier1") == first
    second = _contents(tmp_path / "snap")
    assert second.pop("pose_2_iter_9.caffemodel") == b"of another prefix"
    model = f"pose_iter_4.caffemodel{ending}"
    assert second[model] != first[model]
    assert _iterations(tmp_path / "snap" / "pose_log.jsonl") == [0, 1, 2, 3]
    assert "pose_earlier2" in _finished(solver)
    assert _contents(tmp_path / "snap" / "pose_earlier1") == first
    assert _contents(tmp_path / "snap" / "pose_earlier2") == second
    # what was moved can still be gone on from, and what stands there now is not its own
    third = _contents(tmp_path / "snap")
    del third["pose_2_iter_9.caffemodel"]
    solver = _solver(tmp_path, snapshot_format=form)
    state = tmp_path / "snap" / "pose_earlier1" / f"pose_iter_2.solverstate{ending}"
    said = _finished(solver, "--snapshot", state)
    assert "iteration 2\n" in said
    assert "5 files of an earlier training were moved" in said
    assert _contents(tmp_path / "snap" / "pose_earlier3") == third
    assert _iterations(tmp_path / "snap" / "pose_log.jsonl") == [2, 3]
    assert _contents(tmp_path / "snap")[model] == first[model]


def test_latest_is_of_this_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = _solver(tmp_path)
    _finished(solver, "--max-iter", 20)
    said = _interrupted_after(3, monkeypatch, solver, "--max-iter", 20)
    assert said.splitlines()[-1] == (
        "interrupted at iteration 3; to go on, give the same command with --snapshot latest"
    )
    again = (solver, "--max-iter", 20, "--snapshot", "latest")
    said = _interrupted_after(5, monkeypatch, *again)
    assert "pose_iter_3.solverstate, iteration 3" in said
    assert said.splitlines()[-1] == (
        "interrupted at iteration 5; to go on, give the same command again"
    )
    assert "pose_iter_5.solverstate, iteration 5" in _finished(*again)
    assert _iterations(tmp_path / "snap" / "pose_log.jsonl") == list(range(20))


def test_the_advice_after_an_interruption_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver = _solver(tmp_path)
    _finished(solver)
    weights = tmp_path / "start.caffemodel"
    weights.write_bytes((tmp_path / "snap" / "pose_iter_4.caffemodel").read_bytes())
    words = (solver, "--weights", weights, "--fresh", "fc")
    assert _interrupted_after(1, monkeypatch, *words).endswith(
        "the same command with --snapshot latest in place of --weights and --fresh\n"
    )
    # from an older snapshot: 'latest' would be the newer one
    _finished(solver, "--snapshot", "latest")
    state = tmp_path / "snap" / "pose_iter_2.solverstate"
    said = _interrupted_after(3, monkeypatch, solver, "--snapshot", state)
    assert said.endswith(
        f"the same command with --snapshot {tmp_path}/snap/pose_iter_3.solverstate in place of "
        f"--snapshot {state}\n"
    )


@pytest.mark.parametrize("ending", ["solverstate", "caffemodel"])
def test_the_snapshot_before_a_damaged_one_is_named(tmp_path: Path, ending: str) -> None:
    solver = _solver(tmp_path)
    _finished(solver, "--max-iter", 10)
    damaged = tmp_path / "snap" / f"pose_iter_10.{ending}"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    again = (solver, "--max-iter", 12, "--snapshot")
    refused = _train(*again, "latest")
    before = tmp_path / "snap" / "pose_iter_8.solverstate"
    assert refused.exit_code == 2, refused.output
    assert refused.output.endswith(f"; the one before it is --snapshot {before}\n")
    assert refused.output.count("\n") == 1
    assert "iteration 8" in _finished(*again, before)


def test_a_damaged_snapshot_with_none_before_it(tmp_path: Path) -> None:
    solver = _solver(tmp_path)
    _finished(solver, "--max-iter", 2)
    damaged = tmp_path / "snap" / "pose_iter_2.solverstate"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    refused = _train(solver, "--snapshot", "latest")
    assert refused.exit_code == 2, refused.output
    assert "before" not in refused.output


@pytest.mark.parametrize("how", ["plain", "from elsewhere"])
def test_weights_among_the_files_that_are_moved(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver = _solver(tmp_path)
    _finished(solver)
    monkeypatch.chdir(tmp_path / "snap" if how == "from elsewhere" else tmp_path)
    weights = os.path.relpath(tmp_path / "snap" / "pose_iter_4.caffemodel")
    said = _finished(solver, "--weights", weights, "--max-iter", 1)
    lines = said.splitlines()
    assert lines[0] == f"weights of {weights}:"
    assert "1 layer(s) took their weights from the file: fc" in lines[1]
    assert "the weights pose_iter_4.caffemodel that this one begins with among them" in said
    assert set(_contents(tmp_path / "snap")) == {
        "pose_iter_1.caffemodel",
        "pose_iter_1.solverstate",
        "pose_log.jsonl",
    }


def _in_use(solver: Path) -> Result:
    with hold(solver.parent / "snap" / "pose"):
        return _train(solver)


_REFUSED = {
    "a bad net": lambda solver: _train(_broken(solver, "InnerProduct", "InnerProdukt")),
    "no max_iter": lambda solver: _train(_solver(solver.parent, max_iter=0)),
    "other weights": lambda solver: _train(solver, "--weights", solver),
    "another training": _in_use,
    "no log": lambda solver: _train(solver, "--log", solver.parent),
    "no snapshot": lambda solver: _train(_solver(solver.parent, "_b"), "--snapshot", "latest"),
}


def _broken(solver: Path, old: str, new: str) -> Path:
    net = solver.parent / "net.prototxt"
    net.write_text(net.read_text().replace(old, new))
    return solver


@pytest.mark.parametrize("case", _REFUSED)
def test_a_training_that_is_refused_moves_nothing(tmp_path: Path, case: str) -> None:
    solver = _solver(tmp_path)
    _finished(solver)
    before = _contents(tmp_path / "snap")
    result = _REFUSED[case](solver)
    assert result.exit_code == 2, result.output
    assert result.output.count("error: ") == 1
    assert _contents(tmp_path / "snap") == before
    assert not list((tmp_path / "snap").glob("*earlier*"))


def test_trainings_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What later solvers left is moved at the beginning: 'latest' is the last of this sequence."""
    solvers = [_solver(tmp_path, "_a"), _solver(tmp_path, "_b")]
    _finished(*solvers)
    said = _interrupted_after(3, monkeypatch, *solvers)
    assert f"moved to {tmp_path}/snap/pose_a_earlier1" in said
    assert f"moved to {tmp_path}/snap/pose_b_earlier1" in said
    assert said.splitlines()[-1] == (
        "interrupted at iteration 3; to go on, give the same command with --snapshot latest"
    )
    said = _finished(*solvers, "--snapshot", "latest")
    assert "pose_a_iter_3.solverstate, iteration 3" in said
    assert "moved" not in said
    assert said.splitlines()[-1] == "finished"
    for suffix in "ab":
        assert _iterations(tmp_path / "snap" / f"pose_{suffix}_log.jsonl") == [0, 1, 2, 3]


def test_a_log_alone_is_moved_too(tmp_path: Path) -> None:
    """Of a training that was killed before its first snapshot; an empty one says nothing."""
    solver = _solver(tmp_path)
    (tmp_path / "snap").mkdir()
    log = tmp_path / "snap" / "pose_log.jsonl"
    log.touch()
    assert "earlier" not in _finished(solver)
    for path in (tmp_path / "snap").glob("pose_iter_*"):
        path.unlink()
    said = _finished(solver)
    assert f"1 file of an earlier training was moved to {log.parent}/pose_earlier1\n" in said
    assert _iterations(log) == [0, 1, 2, 3]


def test_a_snapshot_that_is_as_far_already(tmp_path: Path) -> None:
    """Nothing is trained or written, and that is said."""
    solver = _solver(tmp_path, test_iter=1, test_interval=2)
    _finished(solver)
    before = _contents(tmp_path / "snap")
    for more, asked in (
        (("--max-iter", 3), "--max-iter 3"),
        ((), f"max_iter 4 of {solver}"),
    ):
        lines = _finished(solver, "--snapshot", "latest", *more).splitlines()
        assert lines[1] == (
            f"the snapshot is at iteration 4 and {asked} asks for no more, so nothing is trained"
        )
        assert lines[2].startswith("test net 0: ")  # as Caffe does at the end
        assert len(lines) == 3
    assert _contents(tmp_path / "snap") == before


def test_what_is_moved(tmp_path: Path) -> None:
    moved = ["a_iter_5.solverstate", "a_iter_5.caffemodel", "a_iter_12.solverstate.h5"]
    for name in [*moved, "a_iter_x.caffemodel", "a_iter_5.caffemodel.bak", "aa_iter_5.caffemodel"]:
        (tmp_path / name).write_text(name)
    (tmp_path / "real").write_text("real")
    (tmp_path / "a_iter_30.caffemodel").symlink_to("real")
    (tmp_path / "a_tensorboard").mkdir()
    (tmp_path / "a_tensorboard" / "events").write_text("curve")
    (tmp_path / "a_iter_40.caffemodel").mkdir()
    (tmp_path / "a_earlier1").symlink_to("nowhere")
    found = move_aside(tmp_path / "a")
    folder = tmp_path / "a_earlier2"
    names = (*moved, "a_iter_30.caffemodel", "a_tensorboard")
    assert found == Moved(folder, names, 12)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert (folder / "a_iter_30.caffemodel").read_text() == "real"
    assert (folder / "a_tensorboard" / "events").read_text() == "curve"
    assert move_aside(tmp_path / "a") is None
    assert move_aside(tmp_path / "none" / "a") is None


def test_snapshots_of_a_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    for state in ("a_iter_5.solverstate", "../link/a_iter_5.solverstate.h5"):
        assert is_of(state, tmp_path / "here" / "a")
        assert is_of(state, "a")
    for state in (
        "b/a_iter_5.solverstate",
        "aa_iter_5.solverstate",
        "a_earlier1/a_iter_5.solverstate",
    ):
        assert not is_of(state, "a")


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "a_iter_5.solverstate").touch()
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(TargetError, match=r"a_earlier1: this folder.*cannot be made: Permission"):
        move_aside(tmp_path / "a")
    assert (tmp_path / "a_iter_5.solverstate").exists()


@pytest.mark.long
def test_several_processes_move_once(tmp_path: Path) -> None:
    """The first process moves, before anyone trains, and all begin with the weights that were
    among the files."""
    from tests.reproduce.train.test_training import _prepare
    from tests.reproduce.train.test_training import _train as start

    solver = _prepare(tmp_path, max_iter=2, snapshot=0)
    start(solver)
    before = _contents(tmp_path / "snap2")
    weights = tmp_path / "snap2" / "pose_iter_2.caffemodel"
    said = start(solver, "--weights", weights, processes=2)
    assert said.count("files of an earlier training") == 1
    assert _contents(tmp_path / "snap2" / "pose_earlier1") == before
    assert not (tmp_path / "snap2" / "pose_earlier2").exists()
    assert read_state(tmp_path / "snap2" / "pose_iter_2.solverstate").iteration == 2

"""Where commands write: a target that cannot be is one line before the work begins, and names of
targets are taken as people write them."""

from __future__ import annotations

import errno
import importlib
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from caffe_compat import commands
from caffe_compat.definition.prototxt import read_solver
from caffe_compat.files import TargetError, check_target, make_folder, open_to_append, write_text
from caffe_compat.training.rules import unused
from reproduce.cli import export, train
from reproduce.people.annotation import write_json
from reproduce.records import store
from reproduce.runtime.locks import hold_folder
from tests.nets import model_file
from tests.people import dataset

# command, its words with what stands in the fixture's folder, and the option that names the target
_WRITERS = {
    "convert": ("convert", ["small.caffemodel", "-o"]),
    "json": ("export", ["json", "coco", "--data", "none.json", "-o"]),
    "lmdb": ("export", ["lmdb", "people.json", "--data", ".", "-o"]),
    "hdf5": ("export", ["hdf5", "records", "-o"]),
    "show": ("export", ["show", "records", "-o"]),
    "preview": ("export", ["preview", "records", "-o"]),
    "proto": ("export", ["proto", "-o"]),
    "train": ("train", ["solver.prototxt", "--log"]),
    "evaluate": ("evaluate", ["none.npz", "--dataset", "lsp", "--out"]),
    "random": ("models", ["random", "--stages", "1", "--input", "8", "-o"]),
    **{name: ("reproduce", [name, "--out"]) for name in ("fig8", "fig9", "fig10", "fig12")},
    **{f"stored {n}": ("reproduce", [n, "--stored", "--out"]) for n in ("fig4", "fig5", "fig6")},
    **{name: ("reproduce", [name, "--out"]) for name in ("fig4", "report", "all")},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    model_file(folder)
    people = dataset(folder, 3)
    write_json(folder / "people.json", people)
    store.export_lmdb(store.plan(people, seed=1), folder, folder / "records")
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "snap/x"'
    )
    (folder / "net.prototxt").write_text(
        'layer { name: "d\\033[2J" type: "DummyData" top: "a" top: "b"'
        "  dummy_data_param { shape { dim: 1 dim: 2 } } }"
        'layer { name: "fc\\nsnapshot of a bank" type: "InnerProduct" bottom: "a" top: "fc"'
        "  inner_product_param { num_output: 2 } }"
        'layer { name: "loss\\nall is well" type: "EuclideanLoss" bottom: "fc" bottom: "b"'
        '  top: "loss\\nall is well" }'
    )
    return folder


def _run(module: str, arguments: list[str]) -> Result:
    return CliRunner().invoke(importlib.import_module(f"reproduce.cli.{module}").main, arguments)


@pytest.mark.parametrize("name", _WRITERS)
def test_no_folder_below_a_file(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first and only thing that is said is that the target cannot be written."""
    monkeypatch.chdir(source)
    (tmp_path / "file").write_text("mine")
    module, words = _WRITERS[name]
    result = _run(module, [*words, str(tmp_path / "file" / "x" / "y.npz")])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert [line[:6] for line in result.output.splitlines()] == ["error:"], result.output
    assert "file" in result.output
    assert "directory" in result.output.lower() or "folder" in result.output
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("ending", ["/", "//", ""])
def test_a_database_may_be_named_with_a_slash(source: Path, tmp_path: Path, ending: str) -> None:
    """As the shell completes names of folders."""
    out = tmp_path / "lmdb"
    people = [str(source / "people.json"), "--data", str(source)]
    result = _run("export", ["lmdb", *people, "-o", f"{out}{ending}"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.iterdir()] == ["data.mdb"]
    assert not (tmp_path / "lmdb.partial").exists()
    again = _run("export", ["lmdb", *people, "-o", f"{out}{ending}"])
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_a_link_that_leads_nowhere_is_no_target(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "lmdb"
    out.symlink_to(tmp_path / "nowhere")
    people = [str(source / "people.json"), "--data", str(source)]
    result = _run("export", ["lmdb", *people, "-o", str(out)])
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert not (tmp_path / "lmdb.partial").exists()


def test_logs(source: Path, tmp_path: Path) -> None:
    for bad in (tmp_path, Path("/dev/null"), tmp_path / "none" / "log"):
        with pytest.raises(TargetError, match=r"cannot be written|directory|device"):
            open_to_append(bad)
        result = _run("train", [str(source / "solver.prototxt"), "--log", str(bad)])
        assert result.exit_code == 2
        assert result.output.count("error:") == 1
    for line in ("one\n", "two\n"):
        with open_to_append(tmp_path / "log") as log:
            log.write(line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_folder_that_is_not_there_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the folder that lacks: nobody expects the target to be there."""
    says = "nodir/x: cannot be written: the folder nodir does not exist; make it, or choose another"
    monkeypatch.chdir(tmp_path)
    for attempt in (check_target, open_to_append, lambda name: write_text(name, "")):
        with pytest.raises(TargetError, match=says):
            attempt("nodir/x")
    result = _run("convert", [str(source / "small.caffemodel"), "-o", "nodir/x.pth"])
    assert result.exit_code == 2
    assert "x.pth: cannot be written: the folder nodir does not exist" in result.stderr
    assert not list(tmp_path.iterdir())


_INTO_A_FOLDER = [
    name
    for name, (module, _) in _WRITERS.items()
    if name == "proto"
    or (module == "reproduce" and name not in ("fig4", "all"))  # which train first
]


@pytest.mark.parametrize("name", _INTO_A_FOLDER)
def test_one_command_at_a_time_writes_a_folder_of_results(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one says who is there, and touches nothing."""
    monkeypatch.chdir(source)
    module, words = _WRITERS[name]
    before = set(source.iterdir())
    with hold_folder(tmp_path / "out"):
        result = _run(module, [*words, str(tmp_path / "out")])
        assert {path.name[0] for path in (tmp_path / "out").iterdir()} == {"."}
    assert result.exit_code == 2, result.output
    assert f"{tmp_path / 'out'}: process {os.getpid()} on" in result.stderr
    assert "is writing there" in result.stderr.splitlines()[-1]
    assert set(source.iterdir()) == before


def test_a_refused_command_leaves_a_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "pose_deploy.prototxt").write_text("mine")
    for _ in range(2):
        result = _run("export", ["proto", "-o", str(tmp_path)])
        assert result.exit_code == 2
        assert "exists already with another text" in result.stderr
        assert os.listdir(tmp_path) == ["pose_deploy.prototxt"]


def test_folders_of_results_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "out" / "results").mkdir(parents=True)
    make_folder(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results"]


@pytest.mark.parametrize("debug", [False, True])
def test_what_the_system_refuses_is_one_line(
    debug: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["cpm-x", *(["--debug"] if debug else [])])

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a\x1b[2J\nb.log")

    with pytest.raises(OSError if debug else SystemExit) as raised:
        commands.run_reporting(full)
    if not debug:
        assert raised.value.code == 2  # type: ignore[attr-defined]
        said = capsys.readouterr().err
        assert said == "error: a\\x1b[2J\\nb.log: No space left on device\n"


def test_an_output_that_is_full_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit):
        commands.run_reporting(full)
    assert capsys.readouterr().err == "error: the output: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--input 63x", "--input: expected HEIGHTxWIDTH, or one number for both, found '63x'"),
        ("--input 64,64", "--input: expected HEIGHTxWIDTH, or one number for both, found '64,64'"),
        ("--input 64x64x64", "--input: expected HEIGHTxWIDTH"),
        (
            "--front vgg --blocks 16x2,32",
            "--blocks: expected CHANNELSxLAYERS with commas between blocks, found '32'",
        ),
    ],
)
def test_sizes_with_an_x(words: str, says: str, tmp_path: Path) -> None:
    from reproduce.cli import export

    target = ["-o", str(tmp_path / "net")]
    result = CliRunner().invoke(export.main, ["proto", *words.split(), *target])
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    "option",
    ["--channels", "--kernels", "--source", "--part-names", "--dropout", "--blocks"],
)
def test_empty_values_are_refused(option: str, tmp_path: Path) -> None:
    front = ["--front", "vgg"] if option == "--blocks" else []
    for value in ("", "nan"):
        if value == "nan" and option in ("--source", "--part-names"):
            continue  # a name
        words = ["proto", "-o", str(tmp_path / "net"), *front, option, value]
        result = CliRunner().invoke(export.main, words)
        assert result.exit_code == 2, (value, result.output)
        assert result.stderr.lower().count("error") == 1
    assert not (tmp_path / "net").exists()


def test_tolerance_goes_with_verify(source: Path) -> None:
    result = _run("convert", [str(source / "small.caffemodel"), "--tolerance", "1"])
    assert result.exit_code == 2
    assert "--verify" in result.stderr


def test_names_of_layers_begin_no_lines(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("solver", "net"):
        text = (source / f"{name}.prototxt").read_text()
        (tmp_path / f"{name}.prototxt").write_text(text + (" display: 1" * (name == "solver")))
    words = ["solver.prototxt", "--workers", "0", "--device", "cpu"]
    first = CliRunner().invoke(train.main, words)
    assert first.exit_code == 0, first.output
    model = str(tmp_path / "snap" / "x_iter_1.caffemodel")
    again = CliRunner().invoke(train.main, [*words, "--weights", model])
    converted = _run("convert", [model, "-o", "a.npz", "--prototxt", "net.prototxt"])
    for result in (first, again, converted):
        assert result.exit_code == 0, result.output
        assert "\\n" in result.output
        started = ("snapshot of a bank", "all is well")
        assert not [line for line in result.output.splitlines() if line.startswith(started)]


@pytest.mark.parametrize("words", [["show", "records"], ["preview", "records", "--n", "2"]])
def test_pictures_of_records_have_the_format_of_their_names(
    words: list[str], source: Path, tmp_path: Path
) -> None:
    command = [words[0], str(source / words[1]), *words[2:], "-o"]
    assert _run("export", [*command, str(tmp_path / "x.jpg")]).exit_code == 0
    assert (tmp_path / "x.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    refused = _run("export", [*command, str(tmp_path / "x.gif")])
    assert refused.exit_code == 2
    assert "ending .png, .jpg or .jpeg" in refused.output
    assert not (tmp_path / "x.gif").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--solver", "net=other.prototxt"], "--solver net=...: the net is the one that this"),
        (["--solver", "train_net=other.prototxt"], "--solver train_net=...: the net"),
        (["--kernels", "8,5,11"], "a kernel of 8: expected odd ones"),
        (["--kernels", "9,4,11"], "a kernel of 4"),
        (["--stage-kernel", "10"], "a kernel of 10"),
    ],
)
def test_definitions_that_could_not_be_used(options: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(export.main, ["proto", "-o", str(tmp_path / "x"), *options])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "x").exists()


def _proto(out: Path, *more: str) -> Result:
    return _run("export", ["proto", "-o", str(out), "--stages", "2", *more])


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_definitions_edited_by_hand_are_not_overwritten(tmp_path: Path) -> None:
    """Every file with another text is named, before anything is written; the same text is fine."""
    out = tmp_path / "net"
    for _ in range(2):
        assert _proto(out).exit_code == 0
    (out / "pose_solver.prototxt").write_text('net: "mine.prototxt"')
    (out / "pose_train_test.prototxt").unlink()
    before = _texts(out)
    result = _proto(out)
    assert result.exit_code == 2
    assert result.output == (
        f"error: {out}: pose_solver.prototxt exists already with another text; remove it or choose "
        "another folder with -o\n"
    )
    (out / "pose_train_test.prototxt").mkdir()
    result = _proto(out)
    assert result.exit_code == 2
    assert (
        "pose_train_test.prototxt, pose_solver.prototxt exist already with other texts; remove them"
        in result.stderr
    )
    (out / "pose_train_test.prototxt").rmdir()
    assert _texts(out) == before
    (out / "pose_solver.prototxt").unlink()
    assert _proto(out).exit_code == 0
    assert set(_texts(out)) == {*before, "pose_train_test.prototxt"}


def test_definitions_of_another_scheme_are_named(tmp_path: Path) -> None:
    out = tmp_path / "net"
    assert _proto(out, "--scheme", "fine-tuned").exit_code == 0
    before = _texts(out)
    others = (
        "pose_solver_stage1.prototxt, pose_solver_stage2.prototxt, "
        "pose_train_test_stage1.prototxt, pose_train_test_stage2.prototxt"
    )
    result = _proto(out, "--batch", "3")
    assert result.exit_code == 2
    assert f"(there too, and not of this --scheme: {others})" in result.stderr
    assert _texts(out) == before
    # the joint training of both schemes is the same: nothing would be lost
    result = _proto(out)
    assert result.exit_code == 0
    assert f"beside them, of another --scheme or --stages: {others}\n" in result.output
    assert _texts(out) == before


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("base_lr", "expected FIELD=VALUE, such as --solver base_lr=0.001"),
        ("=3", "expected FIELD=VALUE, such as --solver base_lr=0.001"),
        ("base lr=3", "expected FIELD=VALUE, such as --solver base_lr=0.001"),
        ("base_lr=", "expected a number, found '\"\"'"),
        ("base_lr=1 gamma:2", "expected a number, found '\"1 gamma:2\"'"),
        ("base_rl=1", "SolverParameter has no field 'base_rl'; did you mean 'base_lr'?"),
        ("name=x", "SolverParameter has no field 'name'."),
    ],
)
def test_fields_of_a_solver_that_cannot_be_set(item: str, says: str, tmp_path: Path) -> None:
    result = _proto(tmp_path / "net", "--solver", item)
    assert result.exit_code == 2
    assert result.output.startswith(f"error: --solver {item}: {says}")
    assert result.output.count("\n") == 1
    assert not (tmp_path / "net").exists()


def test_fields_of_a_solver_have_their_own_types(tmp_path: Path) -> None:
    items = {
        "base_lr": "1e-05",
        "snapshot_after_train": "false",
        "solver_mode": "CPU",
        "lr_policy": "multistep",
        "snapshot_prefix": '2024/my "run"\\x',
    }
    words = [word for name, value in items.items() for word in ("--solver", f"{name}={value}")]
    steps = ["--solver", "stepvalue=10", "--solver", "stepvalue=20"]
    result = _proto(tmp_path, *words, *steps)
    assert result.exit_code == 0, result.output
    made = read_solver(tmp_path / "pose_solver.prototxt").message
    assert (made.base_lr, made.lr_policy) == (pytest.approx(1e-5), "multistep")
    assert made.snapshot_prefix == items["snapshot_prefix"]
    assert made.snapshot_after_train is False
    assert list(made.stepvalue) == [10, 20]
    assert (made.HasField("gamma"), made.HasField("stepsize")) == (True, False)
    policy = ["--solver", "lr_policy=poly", "--solver", "power=1"]
    assert _proto(tmp_path / "a", *policy).exit_code == 0
    assert unused(read_solver(tmp_path / "a" / "pose_solver.prototxt")) == []
    assert _proto(tmp_path / "b", "--solver", "snapshot_prefix=2024").exit_code == 0


def test_a_log_with_half_a_line_goes_on_below_it(tmp_path: Path) -> None:
    """A kill while a line is written costs that line alone."""
    log = tmp_path / "log.jsonl"
    for before, after in (("", "x\n"), ("a\n", "a\nx\n"), ("a\nhal", "a\nhal\nx\n")):
        log.write_text(before)
        with open_to_append(log) as stream:
            stream.write("x\n")
        assert log.read_text() == after

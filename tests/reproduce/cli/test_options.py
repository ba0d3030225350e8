"""Every option of every command with values that make no sense: one line and exit code 2, or a use
for it; never a traceback, never a process that fills the machine."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from reproduce.cli.common import FILE
from tests.fuzz.readers import imported
from tests.fuzz.run import forked
from tests.nets import model_file
from tests.paths import ROOT

_VALUES = ("0", "-1", "99999999999999999999", "", "nan", "inf", "x", "1,2", "-0.5")
_COMMANDS = ("convert", "export", "train", "predict", "evaluate", "reproduce", "models")


def _walk() -> Iterator[tuple[str, list[str], click.Command]]:
    """(module, words before the options, command) of every command and subcommand."""
    for name in _COMMANDS:
        main = importlib.import_module(f"reproduce.cli.{name}").main
        if isinstance(main, click.Group):
            for word, command in main.commands.items():
                yield name, [word], command
        else:
            yield name, [], main


def _arguments(command: click.Command, folder: Path, without: str = "") -> list[str]:
    """What a command needs to begin; its files are not there, so that it ends soon."""
    words: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            kind = parameter.type
            words.append(
                kind.choices[0] if isinstance(kind, click.Choice) else str(folder / "none")
            )
        elif parameter.required and parameter.name != without:
            kind = parameter.type
            value = kind.choices[0] if isinstance(kind, click.Choice) else str(folder / "target")
            words += [parameter.opts[-1], value]
    return words


# these make the whole report again and again
_LONG = (("reproduce", ["all"]), ("reproduce", ["report"]))


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "words"),
    [
        pytest.param(
            m, w, id="-".join([m, *w]), marks=[pytest.mark.slow] if (m, w) in _LONG else []
        )
        for m, w, _ in _walk()
    ],
)
def test_options_are_checked(
    module: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported()
    monkeypatch.chdir(tmp_path)  # defaults count from here
    command = next(c for m, w, c in _walk() if (m, w) == (module, words))
    main = importlib.import_module(f"reproduce.cli.{module}").main
    options = [
        p for p in command.params if isinstance(p, click.Option) and not p.is_flag and p.name
    ]

    def work() -> Iterator[str]:
        for option in options:
            for value in _VALUES:
                arguments = _arguments(command, tmp_path, option.name or "")
                tried = [*words, *arguments, option.opts[-1], value]
                result = CliRunner().invoke(main, tried)
                said = result.stderr.strip()
                fine = result.exit_code in (0, 1, 2) and "Traceback" not in result.output
                if not isinstance(result.exception, SystemExit | None):
                    fine = False
                if result.exit_code == 2 and not said:
                    fine = False
                yield "fine" if fine else f"{tried}: {result.exit_code} {result.exception!r} {said}"

    answers, ended = forked(work, seconds=60)
    assert not ended, answers[-1:]
    assert [answer for answer in answers if answer != "fine"] == []
    assert len(answers) == len(options) * len(_VALUES)


def test_names_of_targets(tmp_path: Path) -> None:
    """A name that says another format than --to, or none that is known, is refused."""
    from reproduce.cli import convert

    path, _, _ = model_file(tmp_path)
    for arguments in (
        ["-o", str(tmp_path / "x.onnxx")],
        ["--to", "pth", "-o", str(tmp_path / "x.safetensors")],
        ["--to", "h5", "-o", str(tmp_path / "x")],
    ):
        result = CliRunner().invoke(convert.main, [str(path), *arguments])
        assert result.exit_code == 2
        assert "ending" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["small.caffemodel"]


def test_read_only_models_stay_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a read-only original nothing is written without a word."""
    from reproduce.cli import convert

    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    path, _, _ = model_file(there)
    path.chmod(0o444)
    monkeypatch.chdir(here)
    result = CliRunner().invoke(convert.main, [str(path)])
    assert result.exit_code == 0
    assert "read-only" in result.stderr
    assert (here / "small.safetensors").exists()
    assert [p.name for p in there.iterdir()] == ["small.caffemodel"]


def test_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    from reproduce.cli import predict, predict_values

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_values, "inputs", stop)
    result = CliRunner().invoke(predict.main, ["a.jpg"])
    assert result.exit_code == 130
    assert "--resume" in result.stderr


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of 'cpm-models list' stands for its weight file in every command that takes one."""
    from reproduce.cli.common import MODEL, MODELS
    from reproduce.network.identify import embedded, model_file, released

    monkeypatch.chdir(tmp_path)
    (tmp_path / "lsp").mkdir()  # a data set's folder is no weight file
    (tmp_path / "weights").mkdir()
    lsp = next(one for one in released() if one.name == "lsp")
    (tmp_path / "weights" / lsp.file).write_bytes(b"")
    monkeypatch.setenv("CPM_MODELS", str(tmp_path / "weights"))
    there = str(tmp_path / "weights" / lsp.file)
    assert model_file("lsp") == model_file(str(lsp.id)) == there
    assert MODELS.convert(f"leeds-small, lsp,{there}", None, None) == ",".join(
        [str(embedded()), there, there]
    )
    takes = {
        ("predict", "model"): MODEL,
        ("predict", "person_model"): MODEL,
        ("train", "weights"): MODELS,
        ("convert", "model"): MODEL,
        ("reproduce check", "model"): MODEL,
        ("models plan", "model"): MODEL,
        ("models rf", "model"): MODEL,
    }
    for name, words, command in _walk():
        for parameter in command.params:
            kind = takes.pop((" ".join([name, *words]), parameter.name or ""), None)
            assert kind is None or parameter.type is kind
    assert not takes
    for word, main, arguments in (
        ("convert", "leeds-small", []),
        ("models", "plan", ["leeds-small", "--json"]),
        ("predict", "x.png", ["--model", "mpii"]),
        ("train", "solver.prototxt", ["--weights", "leeds-small,nobody"]),
    ):
        module = importlib.import_module(f"reproduce.cli.{word}")
        result = CliRunner().invoke(module.main, [main, *arguments])
        expected = {"predict": "the weights of 'mpii' are not here", "train": "no model; known:"}
        assert result.exit_code == (2 if word in expected else 0), result.output
        assert expected.get(word, "") in result.output
    # what came with the package stays as it is: the converted model lies here
    assert (tmp_path / "leeds-small.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["", "x", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "cuda:99999", "mps"]
)
def test_names_of_devices(name: str) -> None:
    """Refused by every command before anything else is looked at."""
    tried = 0
    for module, words, command in _walk():
        if any(parameter.name == "device" for parameter in command.params):
            main = importlib.import_module(f"reproduce.cli.{module}").main
            arguments = _arguments(command, Path("/nonexistent"))
            result = CliRunner().invoke(main, [*words, *arguments, "--device", name])
            assert result.exit_code == 2
            assert result.stderr == (
                f"error: --device {name}: expected auto, cpu, cuda or cuda:N\n"
            )
            tried += 1
    assert tried > 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "--prototxt", "x"], "--prototxt goes with --model"),
        (["fig4", "--stored", "--results", "x"], "--stored and --results exclude each other"),
        (["fig6", "--stored", "--train-only"], "--stored and --train-only exclude each other"),
        (["fig5", "--stored", "--dry-run"], "--stored and --dry-run exclude each other"),
        (["fig6", "--stored", "--jobs", "2"], "--stored and --jobs exclude each other"),
        (["fig6", "--stored", "--seeds", "2"], "--stored and --seeds exclude each other"),
        (["fig6", "--stored", "--only", "joint-1"], "--stored and --only exclude each other"),
        (["fig6", "--stored", "--profile", "paper"], "holds no results for this figure yet"),
        (["fig5", "--stored", "--stages", "2"], "holds no results for this figure yet"),
        (["fig5", "--only", "nobody*"], "no experiment is called so; there are joint-"),
        (["fig4", "--stages", "2", "--dry-run"], "No such option '--stages'"),
        (["fig11", "--data", "x", "-o", "figures"], "viewpoints of that set are not public"),
    ],
)
def test_options_without_effect_are_refused(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reproduce.cli import reproduce

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(reproduce.main, arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not list(tmp_path.iterdir())


def test_numbers_without_a_range_show_none() -> None:
    from reproduce.cli import predict

    assert "None" not in CliRunner().invoke(predict.main, ["--help"]).output


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        *(("reproduce", [name]) for name in ("check", "fig4", "fig8", "fig9", "report", "all")),
        ("reproduce", ["check", "--model", "leeds-small"]),
        ("evaluate", ["x.npz", "--dataset", "lsp"]),
        ("predict", ["--dataset", "lsp"]),
    ],
)
def test_a_folder_of_data_that_does_not_exist(
    module: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before anything is made."""
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"reproduce.cli.{module}").main
    result = CliRunner().invoke(main, [*arguments, "--data", "nosuch"])
    assert result.exit_code == 2
    assert result.output == "error: nosuch: no such folder (--data)\n"
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, [*arguments, "--data", "file"])
    assert result.output == "error: file: is no folder (--data)\n"


def test_data_that_are_not_here_name_their_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reproduce.cli import evaluate
    from reproduce.predict import joint_files

    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", joints=np.ones((1000, 14, 2)))
    assert joint_files.read("mine.npz").shape == (1000, 14, 2)
    result = CliRunner().invoke(evaluate.main, ["mine.npz", "--dataset", "lsp"])
    assert result.exit_code == 2
    line, *others = result.output.splitlines()
    assert not others
    assert line.startswith("error: lsp/joints.mat is not in . (--data). To be had: Leeds Sports")


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("predict", ["a.jpg", "--frob"], "No such option"),
        ("predict", ["a.jpg", "--batch", "0"], "Invalid value for '--batch'"),
        ("evaluate", ["x.npz"], "Missing option '--dataset'"),
        ("convert", [], "Missing argument 'MODEL'"),
        ("models", ["frob"], "No such command 'frob'"),
        ("models", ["random"], "Missing option '-o' / '--out'"),
        ("reproduce", ["check", "a\nb\x1b[2J"], "Got unexpected extra argument"),
    ],
)
def test_what_click_refuses_is_one_line(module: str, arguments: list[str], says: str) -> None:
    main = importlib.import_module(f"reproduce.cli.{module}").main
    result = CliRunner().invoke(main, arguments, prog_name=f"cpm-{module}")
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith(f"error: {says}")
    assert line.endswith("--help")
    assert f"; see cpm-{module}" in line
    assert "\x1b" not in line


def test_what_predict_is_asked_at_once() -> None:
    from reproduce.cli import predict

    for arguments, says in (
        (["a.jpg", "--dataset", "lsp"], "inputs (a.jpg) and --dataset lsp exclude each other"),
        ([], "give images or folders, or --dataset with --data"),
        (["--dataset", "lsp"], "--dataset lsp: give the folder that holds it with --data"),
        (
            ["--dataset", "lsp", "--data", ".", "--protocol", "flic"],
            "--dataset has its own protocol: leave out --protocol",
        ),
    ):
        result = CliRunner().invoke(predict.main, arguments)
        assert (result.exit_code, result.stderr) == (2, f"error: {says}\n")


def test_unreadable_names_are_for_whoever_opens_them(tmp_path: Path) -> None:
    """click would end a whole command for one of many inputs."""
    (tmp_path / "a.png").touch(mode=0)
    assert FILE.convert(str(tmp_path / "a.png"), None, None) == str(tmp_path / "a.png")
    assert not FILE.readable


def _all_commands() -> Iterator[tuple[str, click.Command]]:
    """Words and command of every command, of groups themselves, too."""
    for name in _COMMANDS:
        main = importlib.import_module(f"reproduce.cli.{name}").main
        yield f"cpm-{name}", main
        if isinstance(main, click.Group):
            for word, command in main.commands.items():
                yield f"cpm-{name} {word}", command


@pytest.mark.parametrize(("words", "command"), [pytest.param(*p, id=p[0]) for p in _all_commands()])
def test_help_ends_with_examples_of_what_there_is(words: str, command: click.Command) -> None:
    commands = dict(_all_commands())
    shown = CliRunner().invoke(command, ["--help"], prog_name=words).output
    examples = [line.strip() for line in shown.partition("Examples:\n")[2].splitlines()]
    assert any(example.startswith(words) for example in examples)
    for example in examples:
        if not example.startswith("cpm-"):
            continue  # under torchrun
        program, *rest = shlex.split(example)
        longer = f"{program} {rest[0]}"
        said = commands[longer if longer in commands else program]
        known = {option for parameter in said.params for option in parameter.opts}
        given = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert given <= known, example


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="no /dev/stdin")
def test_results_do_not_go_beside_a_device(tmp_path: Path) -> None:
    path, _, _ = model_file(tmp_path)
    with path.open("rb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "reproduce.cli.convert", "/dev/stdin"],
            stdin=stream,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    says = "error: /dev/stdin: no folder for results; give the result's name with -o\n"
    assert (done.returncode, done.stderr) == (2, says)
    assert not Path("/dev/stdin.safetensors").exists()


def test_a_reader_that_left_ends_a_command_without_a_word() -> None:
    """As in '| head'; the shell says 141 of programs that end so."""
    program = "from reproduce.cli.models import main; main(['rf', 'leeds-small'])"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_group_without_a_command_shows_its_help() -> None:
    from reproduce.cli import models

    result = CliRunner().invoke(models.main, [])
    assert result.output.startswith("Usage:")


def test_what_models_says(tmp_path: Path) -> None:
    """Words, or JSON where it is asked for; the embedded network's weight file, not its folder."""
    from reproduce.cli import models

    words = ["random", "--stages", "1", "--input", "8", "-o", str(tmp_path / "x.caffemodel")]
    said = CliRunner().invoke(models.main, words).output
    assert said.startswith(f"{tmp_path / 'x.caffemodel'}: written, ")
    content = json.loads(CliRunner().invoke(models.main, [*words, "--json"]).output)
    assert content["written"] == str(tmp_path / "x.caffemodel")
    assert f"{content['parameters']:,} parameters" in said
    listed = json.loads(CliRunner().invoke(models.main, ["list", "--json"]).output)
    assert all(Path(row["file"]).suffix for row in listed)
    assert Path(listed[0]["file"]).is_file()

"""``python -m caffe_compat.tools``: what the ``caffe`` program and its small tools did.

Training is ``cpm-train``, converting weights is ``cpm-convert``.

Source: ``tools/*.cpp``, ``tools/extra/parse_log.py``, ``python/draw_net.py`` of BVLC Caffe (what
they do).
"""

from __future__ import annotations

import csv
import io as streams
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import read_net, read_solver
from caffe_compat.definition.spec import TEST, TRAIN
from caffe_compat.definition.textformat import dump
from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import atomic_write, write_hdf5

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from caffe_compat.network.net import Net
    from caffe_compat.training.feed import DataFeed


class _Tools(click.Group):
    """Bad input ends in one line and exit code 2; ``--debug`` shows where it came from."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except CaffeCompatError as error:
            if "--debug" in sys.argv:
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


@click.group(cls=_Tools)
@click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback for bad input.")
def main() -> None:
    """What Caffe's own programs did, on prototxts and models of any age."""


_FILE = click.Path(exists=True, dir_okay=False)
_PHASE = click.Choice(["TEST", "TRAIN"], case_sensitive=False)


def _open(
    definition: str, weights: str | None, phase: str, level: int, stages: tuple[str, ...]
) -> tuple[Net, DataFeed]:
    """A net with the sources of its data layers."""
    from caffe_compat.network.net import Net
    from caffe_compat.training.feed import DataFeed
    from caffe_compat.weights.read import read_weights

    spec = read_net(definition)
    feed = DataFeed(spec, phase, Path("."), None, level, stages)
    stored = None if weights is None else read_weights(weights)
    net = Net(
        spec,
        stored,
        phase=phase,
        level=level,
        stages=stages,
        strict=False,
        input_shapes=feed.shapes or None,
    )
    return net, feed


# ------------------------------------------------------------ time


@main.command()
@click.argument("definition", type=_FILE)
@click.option("--weights", type=_FILE, help="Weights; without any the fillers' are used.")
@click.option("--phase", type=_PHASE, default="TEST", show_default=True, help="Which layers.")
@click.option(
    "--iterations", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How many."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--forward-only", is_flag=True, help="Leave the backward passes out.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def time(
    definition: str,
    weights: str | None,
    phase: str,
    iterations: int,
    device: str,
    forward_only: bool,
    as_json: bool,
) -> None:
    """How long each layer of DEFINITION takes, and the whole network.

    Inputs are random. The whole network may take less than its layers together, because layers
    are joined where nobody looks at what is between them.

    \b
    python -m caffe_compat.tools time pose_deploy.prototxt --iterations 5
    """
    import torch

    net, feed = _open(definition, weights, phase.upper(), 0, ())
    if device != "cpu" and not torch.cuda.is_available():
        raise CaffeCompatError(f"--device {device}: torch finds no GPU here")
    net.to(device)
    shapes = {name: net.graph.blobs[name] for name in net.graph.inputs}
    torch.manual_seed(1)
    data = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
    if feed.shapes:
        data.update(feed.batch(0, device))
    forward, backward = _layer_times(net, data, iterations, not forward_only)

    def whole() -> None:
        with torch.no_grad():
            net(**data)

    whole()
    total = _seconds(whole, device, iterations)
    rows = [
        (name, kind, forward[place] * 1e3, backward[place] * 1e3)
        for place, (name, kind) in enumerate((n.layer.name, n.layer.type) for n in net.graph.nodes)
        if place in forward
    ]
    if as_json:
        keys = ("layer", "type", "forward_ms", "backward_ms")
        layers = [dict(zip(keys, row, strict=True)) for row in rows]
        click.echo(json.dumps({"layers": layers, "network_forward_ms": total * 1e3}, indent=1))
        return
    for name, kind, ahead, back in rows:
        said = f"{name:<24} {kind:<16} forward {ahead:9.3f} ms"
        click.echo(said if forward_only else f"{said}   backward {back:9.3f} ms")
    click.echo(f"layers together: forward {sum(row[2] for row in rows):.1f} ms")
    if not forward_only:
        click.echo(f"layers together: backward {sum(row[3] for row in rows):.1f} ms")
    click.echo(f"network: forward {total * 1e3:.1f} ms (mean of {iterations})")


def _seconds(call: Callable[[], Any], device: str, times: int) -> float:
    """Mean time of a call; waits for a GPU."""
    import torch

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    wait()
    begin = clock.perf_counter()
    for _ in range(times):
        call()
    wait()
    return (clock.perf_counter() - begin) / times


def _layer_times(
    net: Net, data: dict[str, Tensor], iterations: int, backward: bool
) -> tuple[dict[int, float], dict[int, float]]:
    """Mean forward and backward seconds of each layer, by its place."""
    import torch

    from caffe_compat.engine.plan import using

    net.pack()
    device = next(iter(data.values())).device.type if data else "cpu"
    ahead: dict[int, float] = {}
    back: dict[int, float] = {}
    values = dict(data)
    for place, node in enumerate(net.graph.nodes):
        if node.layer.data:
            continue
        bottoms = [values[name].detach() for name in node.bottoms]
        params = [net.param(param) for param in node.params]

        def run(
            layer: Any = node.layer, params: Any = params, bottoms: Any = bottoms
        ) -> tuple[Tensor, ...]:
            return tuple(layer.forward(params, *bottoms))

        with torch.no_grad(), using(net.engine):
            tops = run()
            ahead[place] = _seconds(run, device, iterations)
        values.update(zip(node.tops, tops, strict=True))
        back[place] = 0.0
        if backward:
            back[place] = _backward_seconds(node.layer, params, bottoms, net, device, iterations)
    return ahead, back


def _backward_seconds(
    layer: Any, params: list[Tensor], bottoms: list[Tensor], net: Net, device: str, times: int
) -> float:
    import torch

    from caffe_compat.engine.plan import using

    leaves = [b.clone().requires_grad_(b.is_floating_point()) for b in bottoms]
    with torch.enable_grad(), using(net.engine):
        tops = [t for t in layer.forward(params, *leaves) if t.requires_grad]
        wanted = [t for t in [*leaves, *params] if t.requires_grad]
        if not tops or not wanted:
            return 0.0
        ones = [torch.ones_like(top) for top in tops]

        def run() -> None:
            torch.autograd.grad(tops, wanted, ones, retain_graph=True, allow_unused=True)

        return _seconds(run, device, times)


# ------------------------------------------------------------ test


@main.command()
@click.argument("definition", type=_FILE)
@click.option("--weights", type=_FILE, required=True, help="The weights to test.")
@click.option(
    "--iterations", type=click.IntRange(1), default=50, show_default=True, help="Batches."
)
@click.option("--level", type=int, default=0, show_default=True, help="Level of the net's state.")
@click.option("--stage", "stages", multiple=True, help="Stage of the net's state (repeatable).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def test(
    definition: str,
    weights: str,
    iterations: int,
    level: int,
    stages: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score weights: the mean of DEFINITION's outputs over batches of its TEST data layers.

    \b
    python -m caffe_compat.tools test train_test.prototxt --weights snap.caffemodel --iterations 100
    """
    import torch

    net, feed = _open(definition, weights, TEST, level, stages)
    if not feed.shapes:
        raise CaffeCompatError(
            f"{definition}: no data layer in phase TEST, nothing to test on (a deploy net?)"
        )
    total: dict[str, float] = {}
    mean_loss = 0.0
    with torch.no_grad():
        for number in range(iterations):
            wanted = dict.fromkeys([*net.graph.outputs, *net.losses])
            names = [n for n in wanted if n in net.graph.blobs]
            found = net(blobs=names, **feed.batch(number, "cpu"))
            if net.losses:
                mean_loss += float(net.loss(found)) / iterations
            for name in net.graph.outputs:
                if name in found:
                    values = found[name].reshape(-1).tolist()
                    for i, value in enumerate(values):
                        key = name if len(values) == 1 else f"{name}[{i}]"
                        total[key] = total.get(key, 0.0) + value / iterations
    if as_json:
        click.echo(json.dumps({"batches": iterations, "loss": mean_loss, "outputs": total}))
        return
    if net.losses:
        click.echo(f"loss: {mean_loss:.6g}")
    for name, value in total.items():
        click.echo(f"{name} = {value:.6g}")


# ------------------------------------------------------------ upgrading


@main.command("upgrade-net")
@click.argument("source", type=_FILE)
@click.argument("target", type=click.Path(dir_okay=False))
def upgrade_net(source: str, target: str) -> None:
    """Write a definition or a binary model of any age in the current format.

    \b
    python -m caffe_compat.tools upgrade-net old.prototxt new.prototxt
    python -m caffe_compat.tools upgrade-net old.caffemodel new.caffemodel
    """
    with open(source, "rb") as file:
        binary = b"\0" in file.read(4096)
    if not binary:
        _write_text(target, read_net(source).to_text())
    else:
        from caffe_compat.weights.read import read_weights
        from caffe_compat.weights.write import write_weights

        weights = read_weights(source)
        if weights.net is None:
            raise CaffeCompatError(f"{source}: holds no definition; only binary models do")
        write_weights(target, weights, weights.net)
    click.echo(f"wrote {target}")


@main.command("upgrade-solver")
@click.argument("source", type=_FILE)
@click.argument("target", type=click.Path(dir_okay=False))
def upgrade_solver(source: str, target: str) -> None:
    """Write a solver definition of any age in the current format.

    \b
    python -m caffe_compat.tools upgrade-solver old_solver.prototxt solver.prototxt
    """
    _write_text(target, dump(read_solver(source).message))
    click.echo(f"wrote {target}")


def _write_text(target: str | Path, text: str) -> None:
    with atomic_write(target) as file:
        file.write(text.encode("utf-8"))


# ------------------------------------------------------------ drawing


@main.command()
@click.argument("definition", type=_FILE)
@click.argument("target", type=click.Path(dir_okay=False))
@click.option(
    "--rankdir",
    type=click.Choice(["LR", "TB"]),
    default="LR",
    show_default=True,
    help="From left to right, or downwards.",
)
@click.option("--phase", type=_PHASE, help="Only the layers of this phase; default: all.")
def draw(definition: str, target: str, rankdir: str, phase: str | None) -> None:
    """Draw DEFINITION to TARGET: .png, .svg, .pdf, or .dot for graphviz.

    \b
    python -m caffe_compat.tools draw pose_deploy.prototxt pose.png --rankdir TB
    """
    from caffe_compat.pycaffe.draw import draw_net_to_file

    number = None if phase is None else {TRAIN: 0, TEST: 1}[phase.upper()]
    draw_net_to_file(read_net(definition).to_message(), target, rankdir, number)
    click.echo(f"wrote {target}")


# ------------------------------------------------------------ logs

_STAMP = re.compile(r"[IWEF]\d+ (\d+):(\d+):(\d+(?:\.\d+)?)")
_ITERATION = re.compile(r"Iteration (\d+)")
_RATE = re.compile(r"lr = ([-+.\deE]+)")
_OUTPUT = re.compile(r"(Train|Test) net output #(\d+): (\S+) = (\S+)")


def parse_log(lines: Iterator[str]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The rows of training and of testing of a log that ``caffe train`` wrote.

    Returns
    -------
    Two lists of dictionaries: ``NumIters``, ``Seconds`` since the first line, ``LearningRate``, and
    the net's outputs by name.
    """
    rows: dict[str, list[dict[str, float]]] = {"Train": [], "Test": []}
    iteration: int | None = None
    rate: float | None = None
    first: float | None = None
    days, now = 0.0, 0.0
    for line in lines:
        stamp = _STAMP.match(line)
        if stamp:
            hours, minutes, seconds = stamp.groups()
            at = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            if first is None:
                first = at
            elif at + days < now - 43_200:  # the clock began anew: midnight
                days += 86_400
            now = at + days
        if found := _ITERATION.search(line):
            iteration = int(found[1])
        if found := _RATE.search(line):
            rate = float(found[1])
            for row in reversed(rows["Train"]):  # the rate follows the outputs of its iteration
                if row["NumIters"] != iteration:
                    break
                row["LearningRate"] = rate
        output = _OUTPUT.search(line)
        if output is None or iteration is None:
            continue
        kind, number, name, value = output.groups()
        if not rows[kind] or rows[kind][-1]["NumIters"] != iteration or number == "0":
            elapsed = now - (first or 0.0)
            known = float("nan") if rate is None else rate
            rows[kind].append({"NumIters": iteration, "Seconds": elapsed, "LearningRate": known})
        row = rows[kind][-1]
        try:
            row[name if name not in row else f"{name}_{number}"] = float(value)
        except ValueError:
            continue
    # what was tested before the first rate was printed had that one
    for row in rows["Test"] + rows["Train"]:
        if row["LearningRate"] != row["LearningRate"] and rows["Train"]:
            row["LearningRate"] = rows["Train"][0]["LearningRate"]
    return rows["Train"], rows["Test"]


@main.command("parse-log")
@click.argument("log", type=_FILE)
@click.argument("folder", type=click.Path(file_okay=False), default=".")
@click.option("--delimiter", default=",", show_default=True, help="Between the columns.")
def parse_log_command(log: str, folder: str, delimiter: str) -> None:
    """Tables of a log that `caffe train` wrote: FOLDER/LOG.train and FOLDER/LOG.test (CSV).

    \b
    python -m caffe_compat.tools parse-log train.log tables
    """
    with open(log, encoding="utf-8", errors="replace") as lines:
        train, tested = parse_log(iter(lines))
    if not train and not tested:
        raise DataError(f"{log}: no line with a net's output; expected a log of 'caffe train'")
    if len(delimiter) != 1:
        raise CaffeCompatError(f"--delimiter '{delimiter}': expected one character")
    os.makedirs(folder, exist_ok=True)
    for kind, rows in (("train", train), ("test", tested)):
        target = Path(folder) / f"{Path(log).name}.{kind}"
        text = streams.StringIO()
        names = dict.fromkeys(name for row in rows for name in row)
        columns = list(names) or ["NumIters", "Seconds", "LearningRate"]
        writer = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        _write_text(target, text.getvalue())
        click.echo(f"wrote {target}: {len(rows)} rows")


# ------------------------------------------------------------ means and features


def _pixels(value: bytes, key: str, path: str) -> npt.NDArray[np.float32]:
    """The K×H×W values of a serialized Datum; encoded pictures are decoded."""
    import cv2
    import numpy as np
    from google.protobuf.message import DecodeError

    datum = schema.new("Datum")
    try:
        datum.ParseFromString(value)
    except DecodeError:
        raise DataError(f"{path}: record {key} is no Datum") from None
    if datum.encoded:
        image = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise DataError(f"{path}: record {key} holds no picture that can be decoded")
        return np.asarray(np.atleast_3d(image).transpose(2, 0, 1), np.float32)
    flat = (
        np.frombuffer(datum.data, np.uint8)
        if datum.data
        else np.array(datum.float_data, np.float32)
    )
    shape = (datum.channels, datum.height, datum.width)
    if flat.size != math.prod(shape) or not flat.size:
        raise DataError(f"{path}: record {key} holds {flat.size} values, its shape is {shape}")
    return np.asarray(flat.reshape(shape), np.float32)


@main.command("image-mean")
@click.argument("database", type=click.Path(exists=True))
@click.argument("target", type=click.Path(dir_okay=False), required=False)
def image_mean(database: str, target: str | None) -> None:
    """The mean picture of an LMDB of Datums, as .binaryproto (or .npy).

    Without TARGET only the mean of each channel is printed.

    \b
    python -m caffe_compat.tools image-mean train_lmdb mean.binaryproto
    """
    import numpy as np

    from caffe_compat.training.datum import LMDBReader

    reader = LMDBReader(database)
    if not len(reader):
        raise DataError(f"{database}: holds no records")
    total: npt.NDArray[np.float64] | None = None
    for key in reader.keys:
        values = _pixels(reader.raw(key), key.decode(errors="replace"), database)
        if total is None:
            total = np.zeros(values.shape)
        elif total.shape != values.shape:
            raise DataError(
                f"{database}: record {key.decode(errors='replace')} has the shape {values.shape}, "
                f"the ones before {total.shape}: a mean needs pictures of one size"
            )
        total += values
    assert total is not None
    mean = total / len(reader)
    if target is not None:
        if target.endswith(".npy"):
            with atomic_write(target) as file:
                np.save(file, mean.astype(np.float32))
        else:
            blob = schema.new("BlobProto", num=1)
            blob.channels, blob.height, blob.width = mean.shape
            blob.data.extend(mean.astype(np.float32).reshape(-1).tolist())
            with atomic_write(target) as file:
                file.write(blob.SerializeToString())
        click.echo(f"wrote {target}: mean of {len(reader)} pictures of {mean.shape}")
    for channel, value in enumerate(mean.reshape(len(mean), -1).mean(1)):
        click.echo(f"channel {channel}: {value:.6g}")


@main.command("extract-features")
@click.argument("definition", type=_FILE)
@click.argument("weights", type=_FILE)
@click.argument("blobs")
@click.argument("targets")
@click.argument("batches", type=click.IntRange(1))
def extract_features(definition: str, weights: str, blobs: str, targets: str, batches: int) -> None:
    """Write BLOBS of BATCHES batches of the TEST data layers to TARGETS.

    BLOBS and TARGETS are names with commas between them, one target for each blob: a .npz or .h5
    file, or else the folder of an LMDB of Datums (float_data, keys of ten digits) as Caffe's.

    \b
    python -m caffe_compat.tools extract-features net.prototxt w.caffemodel fc7,prob 7.h5,p_lmdb 9
    """
    import numpy as np
    import torch

    names, places = blobs.split(","), targets.split(",")
    if len(names) != len(places):
        raise CaffeCompatError(f"{len(names)} blobs, {len(places)} targets: give one for each blob")
    for place in places:
        if os.path.exists(place) and not place.endswith((".npz", ".h5")):
            raise CaffeCompatError(f"{place}: exists already; remove it or choose another name")
    net, feed = _open(definition, weights, TEST, 0, ())
    if not feed.shapes:
        raise CaffeCompatError(
            f"{definition}: no data layer in phase TEST, nothing to compute from"
        )
    if unknown := [name for name in names if name not in net.graph.blobs]:
        raise CaffeCompatError(
            f"no blob is called {', '.join(unknown)}; blobs: {', '.join(net.graph.blobs)}"
        )
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    with torch.no_grad():
        for number in range(batches):
            found = net(blobs=list(parts), **feed.batch(number, "cpu"))
            for name in parts:
                parts[name].append(found[name].float().contiguous().numpy())
    for name, place in zip(names, places, strict=True):
        rows = np.concatenate([np.atleast_1d(part) for part in parts[name]])
        _write_features(place, name, rows)
        click.echo(f"wrote {place}: {len(rows)} features of shape {rows.shape[1:]}")


def _write_features(place: str, name: str, rows: npt.NDArray[np.float32]) -> None:
    if place.endswith(".npz"):
        import numpy as np

        with atomic_write(place) as file:
            np.savez(file, **{name: rows})  # type: ignore[arg-type]
    elif place.endswith(".h5"):
        with write_hdf5(place) as file:
            file[name] = rows
    else:
        _write_lmdb(place, rows)


def _write_lmdb(place: str, rows: npt.NDArray[np.float32]) -> None:
    """Datums with ``float_data``, one a row; the folder appears when it is whole."""
    import lmdb

    folder = os.path.dirname(os.path.abspath(place))
    try:
        partial = tempfile.mkdtemp(prefix=f".{os.path.basename(place)}.", dir=folder)
    except OSError as error:
        raise DataError(f"{place}: cannot be written: {error.strerror}") from None
    try:
        size = rows.nbytes * 2 + len(rows) * 4096 + (16 << 20)
        with lmdb.open(partial, map_size=size) as env, env.begin(write=True) as transaction:
            for number, row in enumerate(rows):
                shape = (*row.shape, 1, 1, 1)[:3]
                datum = schema.new("Datum")
                datum.channels = shape[0] if row.ndim <= 3 else row.size
                datum.height, datum.width = shape[1:] if row.ndim <= 3 else (1, 1)
                datum.float_data.extend(row.reshape(-1).tolist())
                transaction.put(b"%010d" % number, datum.SerializeToString())
        (Path(partial) / "lock.mdb").unlink(missing_ok=True)
        os.chmod(partial, 0o755)
        os.rename(partial, place)
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{place}: cannot be written: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    main(prog_name="python -m caffe_compat.tools")

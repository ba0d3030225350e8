"""Forward pass of a released network: ours, plain torch (channels-last eager) and OpenCV's Caffe
importer, in turn.

One run, same weights and input, several repetitions; prints ratios and the machine. OpenCV must be
4.x: 5 has no Caffe importer any more. With ``--busy`` another program keeps a core busy meanwhile.

    python tools/bench_forward.py --json out/forward.json
    python tools/bench_forward.py --model vgg
    python tools/bench_forward.py --model person --busy
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from timing import in_turn, keep, machine, medians, network_parser, seconds_of

from caffe_compat import Net, read_net, read_weights, write_weights
from reproduce.network.netgen import cpm, deploy, person, vgg

NETWORKS = {"cpm": cpm, "vgg": vgg, "person": person}


def write_model(
    folder: Path, stages: int | None, size: int, model: str = "cpm"
) -> tuple[Path, Path]:
    """A model with random weights of useful size, and its deploy text.

    Parameters
    ----------
    stages : None: as released.
    size : height of the input; the person network's is 16 / 9 as wide, in multiples of 8.
    model : "cpm", "vgg" or "person".
    """
    width = round(size * 16 / 9 / 8) * 8 if model == "person" else 0
    changes: dict[str, Any] = {"filler": "msra", "input_size": size, "input_width": width}
    if stages is not None:
        changes["stages"] = stages
    spec = deploy(NETWORKS[model](**changes))
    net = Net(spec, seed=3)
    write_weights(folder / "net.caffemodel", net.weights(), net.graph.spec)
    (folder / "deploy.prototxt").write_text(spec.to_text())
    return folder / "deploy.prototxt", folder / "net.caffemodel"


def channels_last_weights(net: Net) -> dict[str, torch.Tensor]:
    """A network's weights by name, kernels channels-last."""
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in net.state_dict().items()
    }


def plain_graph(net: Net) -> Callable[[torch.Tensor], torch.Tensor]:
    """The last blob of a network as people port it: torch.nn.functional calls on channels-last
    tensors, a call for each layer."""
    import torch.nn.functional as F

    weights = channels_last_weights(net)
    layers = [(n.layer.name, n.layer.type, n.bottoms, n.tops, n.layer) for n in net.graph.nodes]
    first, last = net.graph.inputs[0], net.graph.outputs[-1]

    def run(data: torch.Tensor) -> torch.Tensor:
        blobs = {first: data.contiguous(memory_format=torch.channels_last)}
        for name, kind, bottoms, tops, layer in layers:
            x = [blobs[bottom] for bottom in bottoms]
            if kind == "Convolution":
                weight = weights[f"{name}.weight"]
                y = F.conv2d(x[0], weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)
            elif kind == "ReLU":
                y = F.relu(x[0], inplace=True)
            elif kind == "Concat":
                y = torch.cat(x, 1)
            elif kind == "Pooling":
                pool = F.max_pool2d if layer.method == "MAX" else F.avg_pool2d  # type: ignore[attr-defined]
                y = pool(x[0], layer.kernel[0], layer.stride[0], ceil_mode=True)  # type: ignore[attr-defined]
            elif kind == "Slice":
                blobs.update(zip(tops, (x[0][:, :3], x[0][:, 3:]), strict=True))
                continue
            else:
                continue
            blobs[tops[0]] = y
        return blobs[last]

    return run


@contextlib.contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Another program that keeps one core busy, where it is wanted.

    It ends by itself when this one is gone, however that came.
    """
    if not wanted:
        yield
        return
    works = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    other = subprocess.Popen([sys.executable, "-c", works])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def plain_stages(weights: Mapping[str, torch.Tensor], data: torch.Tensor) -> list[torch.Tensor]:
    """Every stage's output as people port it: torch.nn.functional calls, nothing else."""
    import torch.nn.functional as F

    stages = (
        sum(name.startswith("Mconv5_stage") and name.endswith("weight") for name in weights) + 1
    )

    def conv(x: torch.Tensor, name: str, relu: bool = True) -> torch.Tensor:
        weight = weights[f"{name}.weight"]
        y = F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)
        return F.relu(y) if relu else y

    def tower(image: torch.Tensor, stage: int) -> torch.Tensor:
        for i in (1, 2, 3):
            image = F.max_pool2d(conv(image, f"conv{i}_stage{stage}"), 3, 2, ceil_mode=True)
        return image

    image, center = data[:, :3], F.avg_pool2d(data[:, 3:], 9, 8, ceil_mode=True)
    if data.is_contiguous(memory_format=torch.channels_last):
        image = image.contiguous(memory_format=torch.channels_last)
    x = tower(image, 1)
    for i in (4, 5, 6, 7):
        x = conv(x, f"conv{i}_stage1", i < 7)
    found = [x]
    shared = tower(image, 2)
    for stage in range(2, stages + 1):
        features = conv(shared, "conv4_stage2" if stage == 2 else f"conv1_stage{stage}")
        x = torch.cat([features, x, center], 1)
        for i in range(1, 6):
            x = conv(x, f"Mconv{i}_stage{stage}", i < 5)
        found.append(x)
    return found


def plain_torch(net: Net) -> Callable[[torch.Tensor], torch.Tensor]:
    """The last stage of such a port on channels-last tensors."""
    weights = channels_last_weights(net)

    def run(data: torch.Tensor) -> torch.Tensor:
        return plain_stages(weights, data.contiguous(memory_format=torch.channels_last))[-1]

    return run


def peak_megabytes(prototxt: Path, model: Path, shape: tuple[int, ...]) -> float:
    """Peak memory of a process that loads the model and runs it once."""
    code = (
        "import torch;from caffe_compat import Net;"
        f"net=Net.from_files({str(prototxt)!r},{str(model)!r});"
        f"x=torch.zeros{shape};\nwith torch.no_grad(): net(x)\n"
        # not ru_maxrss: that counts what this process had before it started the other
        "print(next(line.split()[1] for line in open('/proc/self/status') if "
        "line.startswith('VmHWM')))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    return float(out.split()[-1]) / 1024


@dataclass(frozen=True)
class Measured:
    """What one run measured.

    Attributes
    ----------
    shape : of the input.
    load : seconds until the network was there.
    times : seconds of each engine's forward passes.
    peak : megabytes of a process that loads and runs the network once.
    """

    shape: tuple[int, ...]
    load: float
    times: dict[str, list[float]]
    peak: float


def forward_passes(
    net: Net, peer: Any, data: np.ndarray
) -> dict[str, Callable[[], np.ndarray | torch.Tensor]]:
    """A forward pass of each engine; also of ours with seven images, and in two threads.

    Parameters
    ----------
    peer : OpenCV's network.
    data : one image.
    """
    plain = plain_graph(net)
    first, last = net.graph.inputs[0], net.graph.outputs[-1]
    tensor, batch = torch.from_numpy(data), torch.from_numpy(np.repeat(data, 7, 0))

    def opencv() -> np.ndarray:
        peer.setInput(data, first)
        return np.asarray(peer.forward(last))

    def once() -> None:
        with torch.no_grad():  # which holds for one thread
            net(tensor)

    def two_threads() -> np.ndarray:
        threads = [threading.Thread(target=once) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return data

    return {
        "ours_s": lambda: net(tensor)[last],
        "torch_channels_last_s": lambda: plain(tensor),
        "opencv_s": opencv,
        "ours_batch7_s": lambda: net(batch)[last],
        "ours_two_threads_s": two_threads,
    }


def measure(options: argparse.Namespace, folder: Path) -> Measured:
    """All engines in turn; prints how far their results are from OpenCV's."""
    prototxt, model = write_model(folder, options.stages, options.size, options.model)
    made: list[Net] = []
    load = seconds_of(lambda: made.append(Net(read_net(prototxt), read_weights(model))))
    (net,) = made
    shape = (1, *net.graph.blobs[net.graph.inputs[0]][1:])
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    peer = cv2.dnn.readNetFromCaffe(str(prototxt), str(model))
    engines = forward_passes(net, peer, noise * np.float32(0.3))
    with torch.no_grad():
        results = {name: np.asarray(run()) for name, run in engines.items()}
        scale = np.abs(results["opencv_s"]).max()
        for name in ("ours_s", "torch_channels_last_s"):
            error = np.abs(results[name] - results["opencv_s"]).max() / scale
            print(f"{name[:-2]:22s} differs from OpenCV by {error:.1e} of the largest output")
        times = in_turn(engines, options.repeat)
    return Measured(shape, load, times, peak_megabytes(prototxt, model, shape))


def show(found: Measured, options: argparse.Namespace) -> None:
    """Print seconds and ratios, and keep them where a file was asked for."""
    print(machine())
    meanwhile = ", another program keeps one core busy" if options.busy else ""
    print(f"{options.model}, input {'x'.join(map(str, found.shape))}{meanwhile}")
    print(f"{'engine':24s} {'min':>8s} {'median':>8s}   of OpenCV (median)")
    median = medians(found.times)
    for name, values in found.times.items():
        ratio = median[name] / median["opencv_s"]
        print(f"{name[:-2]:24s} {min(values):8.3f} {median[name]:8.3f}   {ratio:.3f}")
    print(f"loading {found.load:.3f} s, peak memory of loading and one forward {found.peak:.0f} MB")
    keep(
        options.json,
        {
            **median,
            **{f"{name}_all": values for name, values in found.times.items()},
            "peak_mb": found.peak,
            "load_s": found.load,
            "machine": machine(),
            "model": options.model,
            "busy": options.busy,
        },
    )


def main() -> None:
    """Run the benchmark."""
    command = network_parser(__doc__, stages=None)
    command.add_argument("--model", choices=list(NETWORKS), default="cpm")
    command.add_argument("--busy", action="store_true", help="with another program on one core")
    command.add_argument("--repeat", type=int, default=5)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as name, busy(options.busy):
        found = measure(options, Path(name))
    show(found, options)


if __name__ == "__main__":
    main()

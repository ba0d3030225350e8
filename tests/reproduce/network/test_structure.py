"""What is a pose machine is told from the graph: the released networks, variants of each, and
networks that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from caffe_compat import parse_net
from caffe_compat.definition.prototxt import net_from_message
from caffe_compat.network.graph import Graph, build
from reproduce.network import identify, netgen, receptive
from reproduce.network.structure import find_machine

_MODELS = {m.name: m for m in identify.released()}


# ---------------------------------------------------------------- variants of the released models


def _renamed(message: Any, layers: bool, blobs: bool) -> Any:
    """Names that say nothing, and stage numbers that lie."""
    known: dict[str, str] = {}
    for i, layer in enumerate(message.layer):
        if layers:
            layer.name = f"conv_stage{i % 3}_{i}"
        for names in (layer.bottom, layer.top):
            for j, name in enumerate(names):
                if blobs:
                    names[j] = known.setdefault(name, f"blob{len(known) * 7 % 1000}_stage1")
    return message


def _layer_names(message: Any) -> Any:
    return _renamed(message, True, False)


def _blob_names(message: Any) -> Any:
    return _renamed(message, False, True)


def _all_names(message: Any) -> Any:
    return _renamed(message, True, True)


def _wide_input(message: Any) -> Any:
    message.layer[0].input_param.shape[0].dim[2:] = [240, 336]
    return message


def _batch(message: Any) -> Any:
    message.layer[0].input_param.shape[0].dim[0] = 3
    return message


def _turned_concats(message: Any) -> Any:
    for layer in message.layer:
        if layer.type == "Concat":
            layer.bottom[:] = list(layer.bottom)[::-1]
    return message


def _activations_apart(message: Any) -> Any:
    """No layer works in place."""
    current: dict[str, str] = {}
    for layer in message.layer:
        layer.bottom[:] = [current.get(name, name) for name in layer.bottom]
        if layer.type == "ReLU":
            current[layer.top[0]] = f"{layer.top[0]}_active"
            layer.top[0] = current[layer.top[0]]
    return message


def _dropout(message: Any) -> Any:
    """Dropout left in, in place and as a layer of its own, on the belief maps too."""
    found = type(message)()
    found.CopyFrom(message)
    del found.layer[:]
    for layer in message.layer:
        found.layer.add().CopyFrom(layer)
        if layer.type == "Convolution":
            found.layer.add(
                name=f"drop_{layer.name}", type="Dropout", bottom=layer.top, top=layer.top
            )
    return found


def _own_features(message: Any) -> Any:
    """Every stage computes its own image features, nothing is shared."""
    producers: dict[str, list[Any]] = {}
    for layer in message.layer:
        for top in layer.top:
            producers.setdefault(top, []).append(layer)
    found = type(message)()

    def copy(blob: str, suffix: str) -> str:
        if blob in ("image", "pool_center_lower"):
            return blob
        if (blob, suffix) in copied:
            return blob + suffix
        copied.add((blob, suffix))
        for layer in producers[blob]:
            below = [copy(b, suffix) if b != blob else blob + suffix for b in layer.bottom]
            made = found.layer.add()
            made.CopyFrom(layer)
            made.name += suffix
            made.bottom[:] = below
            made.top[:] = [blob + suffix]
        return blob + suffix

    copied: set[tuple[str, str]] = set()
    for layer in message.layer:
        bottoms = list(layer.bottom)
        if layer.type == "Concat":
            bottoms = [
                b
                if b.startswith(("Mconv", "conv7_stage1")) or ("_2_CPM" in b and i == 0)
                else copy(b, f"_of_{layer.name}")
                for i, b in enumerate(bottoms)
            ]
        made = found.layer.add()
        made.CopyFrom(layer)
        made.bottom[:] = bottoms
    return _without_unread(found, message.layer[-1].top[0])


def _without_unread(message: Any, result: str) -> Any:
    """Only the layers that the result comes from."""
    needed = {result}
    kept = []
    for layer in reversed(message.layer):
        if needed.intersection(layer.top):
            needed.update(layer.bottom)
            kept.append(layer)
    found = type(message)()
    for layer in reversed(kept):
        found.layer.add().CopyFrom(layer)
    return found


def _two_inputs(message: Any) -> Any:
    """Image and centre map come in apart instead of being cut out of one blob."""
    if message.layer[1].type == "Slice":
        height, width = message.layer[0].input_param.shape[0].dim[2:]
        del message.layer[1]
        message.layer[0].top[:] = ["image", "center_map"]
        del message.layer[0].input_param.shape[:]
        for channels in (3, 1):
            message.layer[0].input_param.shape.add().dim.extend([1, channels, height, width])
    return message


def _active_maps(message: Any) -> Any:
    """An activation on the belief maps of every stage."""
    read = {b for la in message.layer if la.type == "Concat" for b in la.bottom}
    all_read = {b for la in message.layer for b in la.bottom}
    found = type(message)()
    for i, layer in enumerate(message.layer):
        found.layer.add().CopyFrom(layer)
        plain = layer.type == "Convolution" and not any(
            la.type == "ReLU" and la.bottom[0] == layer.top[0] for la in message.layer[i:]
        )
        if plain and (layer.top[0] in read or layer.top[0] not in all_read):
            found.layer.add(name=f"active{i}", type="Sigmoid", bottom=layer.top, top=layer.top)
    return found


_CHANGES: tuple[Callable[[Any], Any], ...] = (
    _layer_names,
    _blob_names,
    _all_names,
    _wide_input,
    _batch,
    _turned_concats,
    _activations_apart,
    _dropout,
    _own_features,
    _two_inputs,
    _active_maps,
)


@pytest.mark.parametrize("change", _CHANGES, ids=lambda c: c.__name__.strip("_"))
@pytest.mark.parametrize("name", _MODELS)
def test_variants(name: str, change: Callable[[Any], Any]) -> None:
    model = _MODELS[name]
    graph = build(net_from_message(change(netgen.deploy(model.config(208)).to_message())))
    found = identify.identify(graph, model.file)
    assert (found.stages, found.parts) == (model.stages, model.parts)
    assert found.centre == bool(model.parts)
    assert found.person == (not model.parts)
    assert {graph.blobs[blob][1] for blob in found.outputs} == {model.parts + 1}
    assert found.outputs[-1] in graph.outputs
    if change is not _own_features:  # more parameters than the released file has
        assert found.named == model
    fields = receptive.stages(graph)
    assert [blob for blob, _, _ in fields] == list(found.outputs)
    assert all(a.size < b.size for (_, a, _), (_, b, _) in pairwise(fields))


@pytest.mark.parametrize("stages", [2, 3, 5])
@pytest.mark.parametrize("parts", [1, 4, 21])
@pytest.mark.parametrize("front", ["cpm", "vgg"])
@pytest.mark.parametrize("centre", [True, False])
def test_other_sizes(stages: int, parts: int, front: str, centre: bool) -> None:
    config = netgen.CPMConfig(
        stages=stages,
        parts=parts,
        input_size=64,
        towers=(4, 8, 8),
        features=parts + 1,  # as many as belief maps: the activation tells them apart
        wide=parts + 1,
        belief=6,
        front=front,  # type: ignore[arg-type]
        centre=centre,
        blocks=((4, 1), (4, 1), (8, 1)),
        front_convs=(8, parts + 1),
        stage_convs=2,
    )
    found = identify.identify(build(netgen.deploy(config)))
    assert (found.stages, found.parts, found.centre) == (stages, parts, centre)
    assert found.candidates == ()
    trained = netgen.train_test(config, netgen.DataConfig(batch_size=1))
    assert find_machine(build(trained, phase="TRAIN")) is not None


def test_one_stage() -> None:
    """One stage hands nothing on: the centre map alone makes it a pose machine."""
    for front in ("cpm", "vgg"):
        for centre in (True, False):
            config = netgen.CPMConfig(stages=1, front=front, centre=centre)
            assert (find_machine(build(netgen.deploy(config))) is not None) == centre


def test_a_training_net_of_the_person_network() -> None:
    spec = netgen.train_test(netgen.person(input_size=64, input_width=0), netgen.DataConfig())
    found = identify.identify(build(spec, phase="TRAIN"))
    assert (found.stages, found.parts, found.person) == (4, 0, True)
    assert [m.name for m in found.candidates] == ["person"]


def test_text() -> None:
    model = _MODELS["person"]
    graph = build(netgen.deploy(model.config(64)))
    assert "one map (a body's centre), no centre map: released model 6" in (
        identify.identify(graph, f"/where/{model.file}").text
    )
    assert "has the structure of released model 6" in identify.identify(graph, "other").text


# ---------------------------------------------------------------- networks that are none


class _Text:
    """A definition, layer by layer."""

    def __init__(self, channels: int = 3, size: int = 64) -> None:
        self.lines = [
            f'input: "data" input_shape {{ dim: 1 dim: {channels} dim: {size} dim: {size} }}'
        ]
        self.count = 0

    def add(self, kind: str, bottoms: list[str], options: str = "", tops: int = 1) -> str:
        """A layer; returns its (first) top."""
        self.count += 1
        names = [f"b{self.count}" + "x" * i for i in range(tops)]
        wired = "".join(f' bottom: "{b}"' for b in bottoms) + "".join(f' top: "{t}"' for t in names)
        self.lines.append(f'layer {{ name: "l{self.count}" type: "{kind}"{wired} {options} }}')
        return names[0]

    def conv(self, bottom: str, n: int, k: int = 3, stride: int = 1, relu: bool = True) -> str:
        """A convolution that keeps the size, with its activation."""
        blob = self.add(
            "Convolution",
            [bottom],
            f"convolution_param {{ num_output: {n} kernel_size: {k} pad: {k // 2} "
            f"stride: {stride} }}",
        )
        return self.add("ReLU", [blob]) if relu else blob

    def pool(self, bottom: str) -> str:
        """Half the size."""
        return self.add("Pooling", [bottom], "pooling_param { kernel_size: 2 stride: 2 }")

    def up(self, bottom: str, n: int) -> str:
        """Twice the size."""
        return self.add(
            "Deconvolution",
            [bottom],
            f"convolution_param {{ num_output: {n} kernel_size: 2 stride: 2 }}",
        )

    def concat(self, *bottoms: str) -> str:
        """Joined channels."""
        return self.add("Concat", list(bottoms))

    def total(self, *bottoms: str) -> str:
        """Added up."""
        return self.add("Eltwise", list(bottoms))

    def classes(self, bottom: str, n: int = 10) -> str:
        """Scores of classes."""
        return self.add("InnerProduct", [bottom], f"inner_product_param {{ num_output: {n} }}")

    def body(self, blob: str = "data", widths: tuple[int, ...] = (8, 16, 32)) -> str:
        """Convolutions and pools."""
        for n in widths:
            blob = self.pool(self.conv(self.conv(blob, n), n))
        return blob

    @property
    def graph(self) -> Graph:
        """The checked graph."""
        return build(parse_net("\n".join(self.lines)))


def _classifier(t: _Text) -> None:
    t.add("Softmax", [t.classes(t.classes(t.body(), 64))])


def _fully_convolutional_classifier(t: _Text) -> None:
    blob = t.body(widths=(8, 8, 8, 8, 8, 8))
    t.conv(t.concat(t.conv(blob, 10, 1, relu=False), blob), 10, 1, relu=False)


def _inception(t: _Text) -> None:
    blob = t.body()
    for _ in range(3):
        branches = [t.conv(blob, 15, k) for k in (1, 3, 5)]
        blob = t.concat(*branches, t.conv(blob, 15, 1))
    t.classes(blob)


def _inception_maps(t: _Text) -> None:
    blob = t.body()
    for _ in range(3):
        blob = t.concat(*(t.conv(blob, 15, k) for k in (1, 3, 5)))
    t.conv(blob, 15, 1, relu=False)


def _residual(t: _Text) -> None:
    blob = t.body()
    for _ in range(4):
        blob = t.add("ReLU", [t.total(blob, t.conv(t.conv(blob, 32), 32, relu=False))])
    t.conv(blob, 15, 1, relu=False)


def _squeeze(t: _Text) -> None:
    blob = t.body()
    for _ in range(3):
        small = t.conv(blob, 8, 1)
        blob = t.concat(t.conv(small, 16, 1), t.conv(small, 16))
    t.add("Pooling", [t.conv(blob, 15, 1)], "pooling_param { pool: AVE global_pooling: true }")


def _dense(t: _Text) -> None:
    """Growth as large as the number of maps that come out."""
    blob = t.body()
    for _ in range(4):
        blob = t.concat(blob, t.conv(t.conv(blob, 32, 1), 15, relu=False))
    t.conv(t.conv(blob, 32, 1), 15, 1, relu=False)


def _segmentation(t: _Text) -> None:
    t.up(t.up(t.up(t.conv(t.body(), 15, 1, relu=False), 15), 15), 15)


def _score_map(t: _Text) -> None:
    t.conv(t.conv(t.body(), 32), 15, 1, relu=False)


def _unet(t: _Text) -> None:
    kept, blob = [], "data"
    for n in (8, 16, 32):
        kept.append(t.conv(t.conv(blob, n), n))
        blob = t.pool(kept[-1])
    for n, skip in zip((32, 16, 8), kept[::-1], strict=True):
        blob = t.conv(t.conv(t.concat(t.up(blob, n), skip), n), n)
    t.conv(blob, 8, 1, relu=False)


def _edges(t: _Text) -> None:
    """Side outputs of every size, joined."""
    sides, blob = [], "data"
    for i, n in enumerate((8, 16, 32)):
        blob = t.conv(t.conv(blob, n), n)
        side = t.conv(blob, 1, 1, relu=False)
        for _ in range(i):
            side = t.up(side, 1)
        sides.append(side)
        blob = t.pool(blob)
    t.conv(t.concat(*sides), 1, 1, relu=False)


def _flow(t: _Text) -> None:
    """Coarse to fine: each estimate is enlarged and joined to finer features."""
    kept, blob = [], "data"
    for n in (8, 16, 32):
        kept.append(t.conv(blob, n))
        blob = t.pool(kept[-1])
    estimate = t.conv(blob, 2, relu=False)
    for n, skip in zip((16, 8, 4), kept[::-1], strict=True):
        blob = t.concat(skip, t.up(blob, n), t.up(estimate, 2))
        estimate = t.conv(blob, 2, relu=False)


def _hourglasses(t: _Text) -> None:
    """Maps handed on by addition."""
    blob = t.body()
    for _ in range(3):
        inner = t.conv(t.total(t.conv(blob, 32), t.up(t.conv(t.pool(blob), 32), 32)), 32)
        maps = t.conv(inner, 15, 1, relu=False)
        blob = t.total(blob, t.conv(inner, 32, 1, relu=False), t.conv(maps, 32, 1, relu=False))
    t.conv(t.conv(blob, 32), 15, 1, relu=False)


def _two_branches(t: _Text) -> None:
    """Belief maps and vector fields side by side."""
    features = t.body()
    fields, maps = t.conv(features, 26, relu=False), t.conv(features, 15, relu=False)
    for _ in range(3):
        joined = t.concat(fields, maps, features)
        fields = t.conv(t.conv(joined, 32), 26, relu=False)
        maps = t.conv(t.conv(joined, 32), 15, relu=False)


def _density(t: _Text) -> None:
    t.conv(t.conv(t.body(widths=(64, 128, 256)), 64), 1, 1, relu=False)


def _proposals(t: _Text) -> None:
    blob = t.conv(t.body(), 32)
    t.conv(blob, 18, 1, relu=False)
    t.conv(blob, 36, 1, relu=False)


def _dilated_sum(t: _Text) -> None:
    blob = t.body()
    t.total(*(t.conv(t.conv(blob, 16, k), 15, 1, relu=False) for k in (1, 3, 5)))


def _pyramid(t: _Text) -> None:
    blob = t.body()
    t.conv(t.conv(t.concat(blob, t.up(t.conv(t.pool(blob), 15, 1, relu=False), 15)), 32), 15, 1)


def _siamese(t: _Text) -> None:
    t.lines.append('input: "other" input_shape { dim: 1 dim: 3 dim: 64 dim: 64 }')
    t.concat(t.classes(t.body()), t.classes(t.body("other")))


def _autoencoder(t: _Text) -> None:
    blob = t.body()
    for n in (16, 8, 3):
        blob = t.up(blob, n)


def _refined_image(t: _Text) -> None:
    """A picture that is made better again and again, from itself."""
    image = t.conv(t.conv("data", 16), 3, relu=False)
    for _ in range(3):
        image = t.conv(t.conv(t.concat(image, "data"), 16), 3, relu=False)


def _landmarks(t: _Text) -> None:
    t.classes(t.add("TanH", [t.classes(t.body(), 32)]), 28)


def _late_image(t: _Text) -> None:
    """Later steps look at the image past the concatenation: no stage is a function of it."""
    features = t.body()
    maps = t.conv(t.conv(features, 32), 15, relu=False)
    for _ in range(2):
        joined = t.conv(t.concat(maps, features), 32)
        maps = t.conv(t.total(joined, t.conv(features, 32)), 15, relu=False)


def _one_step(t: _Text) -> None:
    """A single convolution on a concatenation is a layer and no stage."""
    features = t.body()
    t.conv(t.concat(t.conv(features, 15, relu=False), features), 15, relu=False)


_OTHERS: tuple[Callable[[_Text], None], ...] = (
    _classifier,
    _fully_convolutional_classifier,
    _inception,
    _inception_maps,
    _residual,
    _squeeze,
    _dense,
    _segmentation,
    _score_map,
    _unet,
    _edges,
    _flow,
    _hourglasses,
    _two_branches,
    _density,
    _proposals,
    _dilated_sum,
    _pyramid,
    _siamese,
    _autoencoder,
    _refined_image,
    _landmarks,
    _late_image,
    _one_step,
)


@pytest.mark.parametrize("make", _OTHERS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("liar", [False, True], ids=["plain", "stage_names"])
def test_no_pose_machine(make: Callable[[_Text], None], liar: bool) -> None:
    """Also where layers are called as the release calls a pose machine's."""
    text = _Text()
    make(text)
    graph = text.graph
    if liar:
        message = graph.spec.to_message()
        found = [la for la in message.layer if la.type == "Convolution"]
        for i, layer in enumerate(found, 1):
            layer.name = f"Mconv5_stage{i}" if i > 1 else "conv7_stage1"
        pools = [la for la in message.layer if la.type == "Pooling"]
        for layer in pools[:1]:
            layer.name = "pool_center_lower"
        graph = build(net_from_message(message))
    assert find_machine(graph) is None
    assert identify.identify(graph, "pose_iter_320000.caffemodel").text == (
        "not a Convolutional Pose Machine"
    )


def _handed_on() -> Iterator[str]:
    """The same networks' relative that is one: as small as a pose machine gets."""
    t = _Text()
    features = t.body()
    maps = t.conv(t.conv(features, 32), 15, relu=False)
    yield maps
    for _ in range(2):
        maps = t.conv(t.conv(t.concat(maps, features), 32), 15, relu=False)
        yield maps
    yield "\n".join(t.lines)


def test_smallest_machine() -> None:
    *outputs, text = _handed_on()
    machine = find_machine(build(parse_net(text)))
    assert machine is not None
    assert machine.outputs == tuple(outputs)
    assert (machine.maps, machine.image, machine.centre) == (15, "data", False)

"""Prototxt text: what is accepted, the old formats, and errors that say where."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from caffe_compat import PrototxtError, parse_net, read_net, read_solver
from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import net_from_message, parse_solver
from caffe_compat.errors import UnsupportedLayer
from caffe_compat.network.graph import build
from tests.paths import GOLDEN, reported

_SHARED = GOLDEN.parent


def _params(text: str) -> object:
    return parse_net(text).layers[-1].message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".5", 0.5),
        ("5.", 5.0),
        ("1e-2", 0.01),
        ("1.e-2f", 0.01),
        ("-3", -3.0),
        ("2F", 2.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("0e2", 0.0),
        ("0f", 0.0),
        ("inf", math.inf),
    ],
)
def test_float_forms(text: str, value: float) -> None:
    layer = parse_net(
        f'layer {{ name: "r" type: "ReLU" relu_param {{ negative_slope: {text} }} }}'
    ).layers[0]
    assert layer.message.relu_param.negative_slope == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["010", "08", "01e-1", "01E3", "01f", "01F", "010.5", "007.5", "00.5", "-010.5"]
)
def test_a_zero_in_front_is_octal_and_no_float(text: str) -> None:
    with pytest.raises(
        PrototxtError, match=f":2: .* without a 0 in front, .* '{text.lstrip('-')}'$"
    ):
        parse_net(f"layer {{ relu_param {{\n negative_slope: {text} }} }}", "n.prototxt")


@pytest.mark.parametrize(("text", "value"), [("12", 12), ("0x1F", 31), ("017", 15), ("0", 0)])
def test_integer_forms(text: str, value: int) -> None:
    layer = parse_net(
        f'layer {{ name: "r" type: "X" convolution_param {{ num_output: {text} }} }}'
    ).layers[0]
    assert layer.message.convolution_param.num_output == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            'layer { name: "a" type: "ReLU" relu_param { negative_slop: 1 } }',
            r"n\.prototxt:1: layer 'a': negative_slop: .*did you mean",
        ),
        (
            'layer {\n name: "a"\n convolution_param {\n num_output: -1 } }',
            r"n\.prototxt:4: layer 'a': num_output: -1 is out of range",
        ),
        (
            'layer {\n name: "a"\n pooling_param {\n pool: MEAN } }',
            r":4: layer 'a': pool: unknown value 'MEAN'; allowed: MAX, AVE",
        ),
        ('layer {\n name: "a"\n name: "b" }', r":3: layer 'a': name: given twice"),
        ('layer { name: "a"', r"end of file"),
        ('layer { name: "a }', r":1: a string that is not closed"),
        ("layer { name: a }", r"name: expected a quoted string"),
        ("layer { relu_param: 3 }", r"relu_param: expected '\{'"),
        ("layer { convolution_param { num_output: 3.0 } }", r"expected an integer, found '3.0'"),
        ("layer { convolution_param { bias_term: yes } }", r"expected true or false"),
        ("layer { convolution_param { num_output: 5x } }", r"need a space"),
        ("layer } ", r"found '\}'|expected"),
        ('layer { name: "\\q" }', r"unknown escape"),
        ("force_backward: true force_backward: true", r"force_backward: given twice"),
        ("layer { clip_param { min: 1 } }", r"clip_param: ClipParameter needs max"),
        ("{" * 300, r"expected a field name"),
        (
            "layer {" * 1 + " convolution_param {" * 1 + " weight_filler <" * 1 + " std: 0x3 > } }",
            r"expected a number",
        ),
    ],
)
def test_errors_say_where(text: str, says: str) -> None:
    with pytest.raises(PrototxtError, match=says) as caught:
        parse_net(text, "n.prototxt")
    assert "\n" not in str(caught.value)


def test_layer_errors_after_parsing_have_lines() -> None:
    from caffe_compat.network.graph import build

    text = (
        'input: "a" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 }\nlayer {\n  name: "c"\n  type: '
        '"Convolution"\n  bottom: "a"\n'
        '  top: "b"\n  convolution_param {\n    num_output: 4\n    kernel_size: 3\n    group: '
        "2\n  }\n}\n"
    )
    with pytest.raises(PrototxtError) as caught:
        build(parse_net(text, "deploy.prototxt"))
    assert str(caught.value).startswith("deploy.prototxt:10: layer 'c': group: ")


_FOUR = "input_dim: 1\ninput_dim: 3\ninput_dim: 5\ninput_dim: 5\n"
_V0_CONV = 'layers {\n layer { name: "c" type: "conv" num_output: 2 kernelsize: %d }\n %s }\n'
_V0_PADDING = 'layers { layer { name: "p" type: "padding" pad: 1 }\n bottom: "x" top: "p" }\n'


@pytest.mark.parametrize(
    ("text", "line", "layer"),
    [
        ('input: "x"\ninput: "x"\ninput_shape { dim: 1 }\ninput_shape { dim: 1 }', 1, "input"),
        ('input: "x"\ninput_shape {\n dim: -1 }', 2, "input"),
        ('input: "x"\n' + _FOUR.replace("5", "-5"), 2, "input"),
        (f'input: "x"\ninput_shape {{ {"dim: 1 " * 33} }}', 1, "input"),
        ('input: "x"\ninput_shape { dim: 65536 dim: 65536 }', 1, "input"),
        ('input: "x"\ninput: "y"\ninput_shape { dim: 1 }', 3, ""),
        ('input: "x"\n\ninput_dim: 1\ninput_dim: 3', 3, ""),
        ('layers {\n layer { name: "r"\n type: "foo" } }', 3, "r"),
        ('layers {\n layer { name: "r" type: "relu"\n kernelsize: 3 } }', 3, "r"),
        ('layers { layer { name: "r" type: "relu" } }\nlayers { name: "b" type: RELU }', 2, "b"),
        ('layers { }\nlayers { layer { name: "p" type: "padding" } }', 1, ""),
        ('\nlayers { layer { name: "p" type: "padding" } }', 2, "p"),
        (_V0_PADDING + 'layers { layer { name: "r" type: "relu" } bottom: "p" }', 3, "r"),
        ('input: "x"\n' + _FOUR + _V0_CONV % (9, 'bottom: "x" top: "c"'), 6, "c"),
        (
            'input: "x"\n' + _FOUR + _V0_PADDING + _V0_CONV % (9, 'bottom: "p" top: "c"'),
            8,
            "c",
        ),
        (
            'layer { name: "p" pooling_param {\n round_mode: FLOOR\n ceil_mode: true } }',
            3,
            "p",
        ),
        (
            'layers { name: "p" type: POOLING pooling_param {\n round_mode: FLOOR\n '
            "ceil_mode: true } }",
            3,
            "p",
        ),
    ],
)
def test_errors_of_what_is_made_new_have_lines(text: str, line: int, layer: str) -> None:
    with pytest.raises(PrototxtError) as caught:
        build(parse_net(text, "n.prototxt"))
    assert (caught.value.line, caught.value.layer) == (line, layer)


def test_no_lines_without_a_text() -> None:
    net = schema.new("NetParameter", input=["x"], input_dim=[1, 3, 5, 5])
    net.layers.add().layer.MergeFrom(schema.new("V0LayerParameter", name="r", type="relu"))
    assert [dict(layer.lines) for layer in net_from_message(net).layers] == [{}, {}]


@pytest.mark.parametrize("layer", ["layer { %s }", "layers { %s }", "layers { layer { %s } }"])
def test_weights_in_a_text_are_not_lost(layer: str) -> None:
    text = "\n" + layer % 'name: "c" blobs { num: 1 data: 3 }'
    for read, body in ((parse_net, text), (parse_solver, f"net_param {{ {text} }}")):
        with pytest.raises(PrototxtError, match=r"s.prototxt:2: blobs: weights .* are not read"):
            read(body, "s.prototxt")


def test_v0_padding_in_place() -> None:
    """The last layer that makes a blob counts."""
    pad = 'layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "x" top: "x" } '
    relu = 'layers { layer { name: "relu" type: "relu" } bottom: "x" top: "x" } '
    conv = (
        'layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 5 } '
        'bottom: "x" top: "y" }'
    )
    head = 'input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8 '
    again = conv.replace('"y"', '"z"')
    for text, padded in ((relu + pad + conv, [2]), (conv + pad + again, [2]), (relu + conv, [])):
        message = parse_net(head + text).layers[-1].message
        assert list(message.convolution_param.pad) == padded
    with pytest.raises(PrototxtError, match="only a conv or pool layer"):
        parse_net(head + pad + relu + conv)


def test_v0() -> None:
    """The oldest format: nested layers, padding layers folded into the convolution that follows."""
    spec = parse_net("""
        name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 12 input_dim: 10
        layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "padded" }
        layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 5 stride: 2 biasterm: false blobs_lr: 1.5
                 weight_decay: 0.5 weight_filler { type: "gaussian" std: 0.1 } } bottom: "padded" top: "conv1" }
        layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
        layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
        layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.5 } bottom: "pool1" top: "norm1" }
        layers { layer { name: "ip1" type: "innerproduct" num_output: 2 } bottom: "norm1" top: "ip1" }
    """)
    from caffe_compat.network.graph import build

    assert [layer.type for layer in spec.layers] == [
        "Input",
        "Convolution",
        "ReLU",
        "Pooling",
        "LRN",
        "InnerProduct",
    ]
    conv = spec.layers[1]
    assert conv.bottoms == ("data",)
    assert list(conv.message.convolution_param.pad) == [2]
    assert not conv.message.convolution_param.bias_term
    assert (conv.params[0].lr_mult, conv.params[0].decay_mult) == (1.5, 0.5)
    assert build(spec).blobs["pool1"] == (1, 4, 3, 2)
    with pytest.raises(PrototxtError, match="no meaning for a V0 layer of type 'relu'"):
        parse_net('layers { layer { name: "r" type: "relu" stride: 2 } bottom: "a" top: "b" }')


def test_v1_data_transformation() -> None:
    spec = parse_net("""layers { name: "d" type: DATA top: "data" top: "label" data_param { source: "x" scale: 0.5 mirror: true
                        crop_size: 227 mean_file: "m" batch_size: 2 } include: { phase: TRAIN } }""")
    message = spec.layers[0].message
    t = message.transform_param
    assert (t.scale, t.mirror, t.crop_size, t.mean_file) == (0.5, True, 227, "m")
    assert not message.data_param.HasField("scale")
    assert spec.filter("TEST").layers == ()


def test_batch_norm_upgrade() -> None:
    spec = parse_net(
        'layer { name: "b" type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 0 } param { '
        "lr_mult: 0 } }"
    )
    assert spec.layers[0].params == ()


def test_fork_fields_in_text() -> None:
    layer = parse_net(
        'layer { name: "d" type: "CPMData" cpm_transform_param { stride: 8 crop_size: 368 '
        "num_parts: 56 } }"
    ).layers[0]
    assert layer.message.cpm_transform_param.crop_size == 368


def test_rules_by_state() -> None:
    text = "".join(
        f'layer {{ name: "{n}" type: "Silence" {rule} }}'
        for n, rule in (
            ("always", ""),
            ("train", "include { phase: TRAIN }"),
            ("deep", "include { min_level: 2 }"),
            ("shallow", "include { max_level: 2 }"),
            ("not_one", 'exclude { stage: "one" }'),
            ("either", 'include { stage: "one" } include { phase: TRAIN }'),
        )
    )

    def names(**state: object) -> list[str]:
        return [layer.name for layer in parse_net(text).filter(**state).layers]  # type: ignore[arg-type]

    assert names(phase="TEST") == ["always", "shallow", "not_one"]
    assert names(phase="TRAIN") == ["always", "train", "shallow", "not_one", "either"]
    assert names(phase="TEST", level=2) == ["always", "deep", "shallow", "not_one"]
    assert names(phase="TEST", level=3, stages=["one"]) == ["always", "deep", "either"]


def test_solver_upgrade() -> None:
    assert parse_solver("solver_type: ADAM").message.type == "Adam"
    assert parse_solver("").message.type == "SGD"
    with pytest.raises(PrototxtError, match="not both"):
        parse_solver('solver_type: ADAM type: "SGD"')


def test_files_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x0a\x03abc\0\0")
    (tmp_path / "page.prototxt").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "latin.prototxt").write_bytes(b'name: "\xe9"')
    with pytest.raises(PrototxtError, match=r"binary file.*caffemodel"):
        read_net(tmp_path / "model.bin")
    with pytest.raises(PrototxtError, match="HTML page"):
        read_net(tmp_path / "page.prototxt")
    with pytest.raises(PrototxtError, match="not valid UTF-8"):
        read_net(tmp_path / "latin.prototxt")
    with pytest.raises(PrototxtError, match="No such file"):
        read_net(tmp_path / "none.prototxt")
    with pytest.raises(PrototxtError, match="directory"):
        read_net(tmp_path)


def _everything() -> list[Path]:
    found = sorted(_SHARED.glob("golden/**/*.prototxt")) + sorted(
        _SHARED.glob("data/**/*.prototxt")
    )
    return [p for p in found if "golden/errors" not in p.as_posix()]


@pytest.mark.golden
def test_every_prototxt_parses_and_round_trips() -> None:
    paths = _everything()
    if not paths:
        pytest.skip(f"no recorded outputs at {_SHARED}")
    for path in paths:
        if "solver" in path.name:
            read_solver(path)
        else:
            spec = read_net(path)
            assert parse_net(spec.to_text()).to_message() == spec.to_message(), path


@pytest.mark.parametrize(
    "text",
    [
        'layer { name: "a" foo_param { x: 1 y { z: "}" } } type: "Foo" }',
        'layer { name: "a" type: "Foo" foo_param { } }',
        'layer { name: "a" convolution_param { bar <x: { }> } type: "Foo" }',
        'layers { name: "a" foo_param { x: 1 } type: Foo }',
        "layers { type: Foo foo_param { } }",
    ],
)
def test_an_unsupported_type_is_named_before_its_field(text: str) -> None:
    with pytest.raises(UnsupportedLayer, match="unsupported layer type 'Foo'"):
        parse_net(text)


def test_a_wrong_field_of_a_known_type_is_named() -> None:
    with pytest.raises(PrototxtError, match="has no field 'kernel'"):
        parse_net('layer { name: "a" convolution_param { kernel: 1 } type: "Convolution" }')


_A_NET = 'name: "x"\nlayer { name: "a" type: "ReLU" bottom: "b" top: "c" }'
_A_SOLVER = 'net: "n.prototxt"\ntest_iter: [1, 2]\nlr_policy: "fixed" solver_mode: GPU'


def test_a_network_and_a_solver_given_for_each_other() -> None:
    for text in (_A_NET, f"debug_info: true {_A_NET}", 'layers { type: RELU } input: "a"'):
        with pytest.raises(PrototxtError) as raised:
            parse_solver(text, "net.prototxt")
        assert str(raised.value) == (
            "net.prototxt: is a network's definition, not a solver's; give the solver, whose 'net' "
            "names this file"
        )
    with pytest.raises(PrototxtError) as raised:
        parse_net(_A_SOLVER, "solver.prototxt")
    assert str(raised.value) == (
        "solver.prototxt: is a solver's definition, not a network's; give the network's, which "
        "the solver's 'net' names"
    )


@pytest.mark.parametrize(
    "text",
    [
        f'{_A_SOLVER}\nname: "x"',  # a solver with a field too many
        f"{_A_SOLVER}\n{_A_NET}",  # both in one
        'net_param { } name: "x"',
        'name: "x"',
        f'{_A_NET} "not closed',
    ],
)
def test_a_field_of_a_network_in_a_solver_is_no_network(text: str) -> None:
    with pytest.raises(
        PrototxtError, match=r"s\.prototxt:\d: (name|layer): SolverParameter has no"
    ):
        parse_solver(text, "s.prototxt")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "layer { include { fase: TRAIN } }",
            "NetStateRule has no field 'fase'; did you mean 'phase'? Known: phase, min_level, "
            "max_level, stage, not_stage",
        ),
        (
            'layer { name: "a" xyzzy { } type: "ReLU" include { fire: 1 } }',
            "LayerParameter has no field 'xyzzy'. Known: ",
        ),
        (
            "layer { pooling_parm { } }",
            "has no field 'pooling_parm'; did you mean 'pooling_param'",
        ),
        ("layer { include { x: 1 } }", "has no field 'x'. Known: phase, min_level"),
        (
            "layer { convolution_param { hole: 2 } }",
            "has no field 'hole'; it is called dilation here, and means the same",
        ),
        (
            'layers { name: "a" type: CROP }',
            "unsupported layer type 'CROP' in old layers; the current form has it: layer { type: "
            '"Crop" }',
        ),
    ],
)
def test_the_names_that_are_known(text: str, says: str) -> None:
    with pytest.raises(PrototxtError) as raised:
        parse_net(text)
    assert says in str(raised.value)
    assert str(raised.value).count(",") < 25  # not every name of a long list


def test_a_long_list_says_how_many_it_leaves_out() -> None:
    """Together with those that are named, they are all."""
    count = len(schema.known_fields("SolverParameter"))
    with pytest.raises(PrototxtError, match=rf"'base_lr'\? There are {count - 1} others$"):
        parse_solver("base_rl: 1")
    with pytest.raises(PrototxtError, match=rf"Known: train_net, .* and {count - 20} others$"):
        parse_solver("xyzzy: 1")


_POOL = """
input: "x" input_shape { dim: 1 dim: 1 dim: 8 dim: 8 }
layer { name: "p" type: "Pooling" bottom: "x" top: "p"
        pooling_param { kernel_size: 3 stride: 2 %s } }
"""


@pytest.mark.parametrize(
    ("option", "size"),
    [("", 4), ("ceil_mode: true", 4), ("ceil_mode: false", 3), ("round_mode: FLOOR", 3)],
)
def test_ceil_mode_is_a_round_mode(option: str, size: int) -> None:
    net = parse_net(_POOL % option)
    assert build(net).blobs["p"] == (1, 1, size, size)
    assert "ceil_mode" not in net.to_text()


def test_ceil_mode_against_round_mode() -> None:
    with pytest.raises(PrototxtError, match="contradicts round_mode"):
        parse_net(_POOL % "ceil_mode: true round_mode: FLOOR")


@pytest.mark.parametrize("path", reported("unknown_field", "*.prototxt"))
def test_reported_definitions_with_ceil_mode(path: Path) -> None:
    graph = build(read_net(path))
    assert graph.blobs["pool"] == (1, 2, 2, 2)

"""The schema's dialects, binary against text, across what protobuf does."""

from __future__ import annotations

import json

import pytest

from caffe_compat.definition import schema
from caffe_compat.errors import SchemaError, WeightError
from caffe_compat.weights.read import parse_weights
from caffe_compat.weights.write import _chunks
from tests.paths import GOLDEN

_FACTS = GOLDEN.parent / "facts" / "caffe_schema.json"


@pytest.mark.skipif(not _FACTS.exists(), reason="the schema's facts are not here")
@pytest.mark.parametrize(("dialect", "key"), [("upstream", "upstream"), ("fork", "cpm_fork")])
def test_table_equals_the_published_schema(dialect: str, key: str) -> None:
    facts = json.loads(_FACTS.read_text())[key]
    kinds = {v: k for k, v in schema.SCALARS.items()}
    for name, fields in facts["messages"].items():
        descriptor = schema.message_class(name, dialect).DESCRIPTOR
        assert {f.name for f in descriptor.fields} == {f["name"] for f in fields}, name
        for fact in fields:
            field = descriptor.fields_by_name[fact["name"]]
            assert field.number == fact["number"]
            assert schema.is_repeated(field) == (fact["label"] == "repeated")
            kind = (
                kinds.get(field.type)
                or f"caffe.{(field.message_type or field.enum_type).full_name.removeprefix('caffe.')}"
            )
            assert kind == fact["type"]
            if (
                "default" in fact
                and field.enum_type is None
                and not isinstance(field.default_value, str)
            ):
                assert float(field.default_value) == pytest.approx(
                    float(str(fact["default"]).replace("true", "1").replace("false", "0"))
                )
            elif "default" in fact and field.enum_type is not None:
                assert field.enum_type.values_by_number[field.default_value].name == fact["default"]
            elif "default" in fact:
                assert str(field.default_value) == str(fact["default"])
    for name, values in facts["enums"].items():
        scope, _, short = name.rpartition(".")
        owner = schema.message_class(scope, dialect).DESCRIPTOR if scope else None
        enum = (
            owner.enum_types_by_name[short]
            if owner
            else schema._pool(dialect).FindEnumTypeByName(f"caffe.{short}")
        )
        assert {v.name: v.number for v in enum.values} == values


_FORKS = {
    "caffe_fast_rcnn": "rcnn",
    "caffe_rfcn": "rfcn",
    "pspnet": "pspnet",
    "caffe_segnet": "segnet",
    "caffe_enet": "enet",
    "caffe_rtpose": "rtpose",
    "intel_caffe": "intel",
    "caffe_windows_happynear": "happynear",
    "cpm_fork": "fork",
    "shufflenet_farmingyard": "shufflenet",
    "ssd": "ssd",
}
# What a solver of the SSD fork remembers for a policy that this one does not have.
_LEFT_OUT = ("SolverState",)


@pytest.mark.skipif(not _FACTS.exists(), reason="the schema's facts are not here")
@pytest.mark.parametrize("fork", sorted(_FORKS))
def test_table_has_the_fields_of_every_fork(fork: str) -> None:
    file = "schema_ssd.json" if fork == "ssd" else "schema_forks.json"
    facts = json.loads((_FACTS.parent / file).read_text())[fork]
    for name, fields in facts["messages"].items():
        if name in _LEFT_OUT:
            continue
        descriptor = schema.message_class(name, _FORKS[fork]).DESCRIPTOR
        for fact in fields:
            field = descriptor.fields_by_name[fact["name"]]
            assert field.number == fact["number"]
            assert schema.is_repeated(field) == (fact["label"] == "repeated")
            if "default" in fact and field.enum_type is None and field.type != field.TYPE_STRING:
                wanted = str(fact["default"]).replace("true", "1").replace("false", "0")
                assert float(field.default_value) == pytest.approx(float(wanted))
            merged = schema.message_class(name).DESCRIPTOR.fields_by_name[fact["name"]]
            assert merged.type == field.type


@pytest.mark.parametrize(
    ("fork", "settings"),
    [
        ("rcnn", {"type": "ROIPooling", "roi_pooling_param__pooled_h": 6}),
        ("fork", {"type": "ROIPooling", "roi_pooling_param__pooled_h": 6}),
        ("intel", {"type": "ROIPooling", "roi_pooling_param__pooled_w": 6}),
        ("happynear", {"type": "ROIPooling", "roi_pooling_param__pooled_h": 6}),
        ("intel", {"type": "SmoothL1Loss", "smooth_l1_loss_param__sigma": 3.0}),
        ("pspnet", {"type": "BN", "bn_param__frozen": True}),
        ("happynear", {"type": "BN", "bn_param__momentum": 0.5}),
        ("segnet", {"type": "BN", "bn_param__bn_mode": 1}),
        ("enet", {"type": "Upsample", "upsample_param__scale": 3}),
        ("segnet", {"type": "Upsample", "upsample_param__upsample_h": 30}),
        ("ssd", {"type": "DetectionOutput", "detection_output_param__keep_top_k": 200}),
    ],
)
def test_the_type_of_a_layer_says_whose_numbers_hold(
    fork: str, settings: dict[str, object]
) -> None:
    layer = parse_weights(_model(fork, **settings)).net.layers[0].message  # type: ignore[union-attr]
    path, _, field = list(settings)[1].partition("__")
    assert getattr(getattr(layer, path), field) == pytest.approx(list(settings.values())[1])
    # written again and read again, it is the same
    weights = parse_weights(_model(fork, **settings))
    assert weights.net is not None
    data = b"".join(bytes(c) for c in _chunks(weights, weights.net, "upstream"))
    again = parse_weights(data).net
    assert again is not None
    assert again.layers[0].message == layer


def test_numbers_that_the_dialects_share() -> None:
    up, fork = (
        schema.message_class("LayerParameter", d).DESCRIPTOR.fields_by_number
        for d in schema.DIALECTS
    )
    assert (up[147].name, fork[147].name) == ("swish_param", "cpmdata_param")
    assert (up[148].name, fork[148].name) == ("clip_param", "roi_pooling_param")
    up, fork = (
        schema.message_class("TransformationParameter", d).DESCRIPTOR.fields_by_number
        for d in schema.DIALECTS
    )
    assert (up[6].name, fork[6].name) == ("force_color", "stride")
    assert (up[7].name, fork[7].name) == ("force_gray", "scale_cvg")


def _model(dialect: str, **layer: object) -> bytes:
    net = schema.message_class("NetParameter", dialect)(name="n")
    made = net.layer.add(name="l", **{k: v for k, v in layer.items() if k == "type"})
    blob = made.blobs.add()
    blob.shape.dim.append(1)
    blob.data.append(2.5)
    for name, value in layer.items():
        if name != "type":
            path, _, field = name.partition("__")
            setattr(getattr(made, path), field, value)
    return bytes(net.SerializeToString())


@pytest.mark.parametrize(
    ("dialect", "settings"),
    [
        ("fork", {"type": "CPMData", "cpmdata_param__batch_size": 4}),
        ("fork", {"type": "Data", "transform_param__stride": 8}),
        ("fork", {"type": "Data", "transform_param__scale_cvg": 0.5}),
        ("fork", {"type": "Data", "transform_param__target_dist": 1.5}),
        ("fork", {"type": "ROIPooling", "roi_pooling_param__pooled_h": 3}),
        ("upstream", {"type": "Swish", "swish_param__beta": 2.0}),
        ("upstream", {"type": "Clip", "clip_param__min": 0.0, "clip_param__max": 6.0}),
    ],
)
def test_dialect_is_read_off_the_contents(
    dialect: schema.Dialect, settings: dict[str, object]
) -> None:
    data = _model(dialect, **settings)
    found = parse_weights(data)
    assert found.source.dialect == dialect
    assert found.source.evidence
    assert found.net is not None
    layer = found.net.layers[0].message
    for name, value in settings.items():
        if name != "type":
            path, _, field = name.partition("__")
            assert getattr(getattr(layer, path), field) == value
    other: schema.Dialect = "fork" if dialect == "upstream" else "upstream"
    if settings["type"] not in ("CPMData", "ROIPooling", "Swish", "Clip"):
        with pytest.raises(WeightError, match="does not exist in the"):
            parse_weights(data, dialect=other)


def test_no_evidence_is_said() -> None:
    found = parse_weights(_model("upstream", type="Data", transform_param__scale=0.5))
    assert found.source.dialect == ""


def test_contradiction_asks() -> None:
    both = _model("fork", type="CPMData", cpmdata_param__batch_size=4) + _model(
        "upstream", type="Clip", clip_param__min=0.0, clip_param__max=1.0
    )
    with pytest.raises(WeightError, match="--dialect"):
        parse_weights(both)


def test_moving_what_a_dialect_lacks() -> None:
    merged = schema.new("LayerParameter", name="x")
    merged.cpmdata_param.batch_size = 3
    with pytest.raises(SchemaError, match="upstream dialect has no field 'cpmdata_param'"):
        schema.move(merged, schema.message_class("LayerParameter", "upstream")())
    target = schema.message_class("LayerParameter", "fork")()
    schema.move(merged, target)
    assert target.cpmdata_param.batch_size == 3

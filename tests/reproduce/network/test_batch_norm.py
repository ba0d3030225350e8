"""Pose machines with BatchNorm layers: where these stand, and that merging gives the plain ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe_compat.conversion.convert import convert
from caffe_compat.conversion.merge import merge_batch_norm
from caffe_compat.network.net import Net
from caffe_compat.weights.write import write_weights
from reproduce.network import netgen
from reproduce.network.identify import identify
from tests.nets import TINY_MACHINE

CONFIGS = {
    "cpm": replace(TINY_MACHINE, stages=3),
    "vgg": netgen.vgg(
        stages=2,
        input_size=64,
        blocks=((4, 1), (4, 1), (4, 2)),
        front_convs=(8, 4),
        wide=8,
        belief=4,
        stage_kernel=3,
        stage_convs=2,
    ),
}


@pytest.mark.parametrize("front", CONFIGS)
def test_where_it_stands(front: str) -> None:
    config = replace(CONFIGS[front], batch_norm=True)
    layers = netgen.train_test(config, netgen.DataConfig()).layers
    activated = {layer.bottoms[0] for layer in layers if layer.type == "ReLU"}
    for layer in layers:
        if layer.type != "Convolution":
            continue
        after = [one.type for one in layers if layer.tops[0] in one.tops][1:]
        if layer.name in activated:
            assert after[:3] == ["BatchNorm", "Scale", "ReLU"]
        else:  # belief maps
            assert after == []
        assert layer.message.convolution_param.bias_term == (layer.name not in activated)
        assert len(layer.params) == (1 if layer.name in activated else 2)


def test_frozen_stages_keep_their_statistics() -> None:
    config = replace(CONFIGS["cpm"], batch_norm=True)
    nets = netgen.plan(config, netgen.DataConfig(), "stage-wise")
    norms = [layer for layer in nets["_stage2"].layers if layer.type == "BatchNorm"]
    fixed = {n.name for n in norms if n.message.batch_norm_param.use_global_stats}
    assert fixed == {n.name for n in norms if n.name.endswith("stage1")}


@pytest.mark.parametrize("front", CONFIGS)
def test_merged_it_is_the_plain_network(front: str, tmp_path: Path) -> None:
    plain = CONFIGS[front]
    spec = netgen.deploy(replace(plain, batch_norm=True))
    net = Net(spec, seed=3)
    rng = np.random.default_rng(1)
    for node in net.graph.nodes:
        if node.layer.type == "BatchNorm":
            for param in node.params:
                tensor = net.param(param)
                values = rng.uniform(0.5, 2, tuple(tensor.shape)).astype(np.float32)
                tensor.data.copy_(torch.from_numpy(values))
    path = tmp_path / "normalised.caffemodel"
    write_weights(path, net.weights(), spec)
    merged = merge_batch_norm(convert(path))
    expected = netgen.deploy(plain)
    assert [(layer.name, layer.type, layer.tops) for layer in merged.net.layers] == [
        (layer.name, layer.type, layer.tops) for layer in expected.layers
    ]
    assert all(
        layer.message.convolution_param.bias_term
        for layer in merged.net.layers
        if layer.type == "Convolution"
    )
    assert identify(merged.graph, "").stages == plain.stages
    data = torch.from_numpy(rng.normal(size=(1, 4, 64, 64)).astype(np.float32))
    with torch.no_grad():
        whole, fewer = net(data), Net(merged.graph, merged.weights)(data)
    assert whole.keys() == fewer.keys()
    for blob, values in whole.items():
        assert float((fewer[blob] - values).abs().max()) <= 2e-5 * float(values.abs().max()), blob

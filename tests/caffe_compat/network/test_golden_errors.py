"""What Caffe refuses we refuse, with a message that says where; what it accepts we accept, with its
shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from caffe_compat import Net, PrototxtError, read_net
from caffe_compat.network.graph import build
from tests.paths import GOLDEN, listed

_INDEX = GOLDEN / "errors" / "index.json"
_CASES: list[dict[str, Any]] = json.loads(_INDEX.read_text())["cases"] if _INDEX.exists() else []


@pytest.mark.parametrize("case", listed((c, c["name"]) for c in _CASES))
def test_refusal(case: dict[str, Any]) -> None:
    path = GOLDEN / "errors" / f"{case['name']}.prototxt"
    if not case["accepted"]:
        with pytest.raises(PrototxtError) as caught:
            build(read_net(path))
        message = str(caught.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        # a layer's own mistake carries the layer's line; only whole-file mistakes (mixed formats)
        # have none
        assert caught.value.line or not caught.value.layer
        return
    net = Net(read_net(path))
    graph = net.graph
    assert {name: list(graph.blobs[name]) for name in case["blobs"]} == case["blobs"]
    layers = [[node.layer.name, node.layer.type] for node in graph.nodes]
    assert layers == case["layers"]
    params = {
        node.layer.name: [list(p.shape) for p in node.params] for node in graph.nodes if node.params
    }
    assert params == case["params"]
    with torch.no_grad():
        found = net(*(torch.zeros(graph.blobs[name]) for name in graph.inputs))
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        name: graph.blobs[name] for name in graph.outputs
    }

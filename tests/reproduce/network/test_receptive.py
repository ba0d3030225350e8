"""What layers see: windows that grow with the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from caffe_compat import parse_net
from caffe_compat.network.graph import build
from reproduce.cli import models
from reproduce.network import receptive

_FRONT = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 32 dim: 48 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 } }
"""
_WHOLE = {
    "Pooling": "pooling_param { pool: AVE global_pooling: true }",
    "InnerProduct": "inner_product_param { num_output: 5 }",
    "SPP": "spp_param { pyramid_height: 2 }",
}


def _rest(kind: str) -> str:
    return f'layer {{ name: "all" type: "{kind}" bottom: "conv" top: "all" {_WHOLE[kind]} }}'


@pytest.mark.parametrize("kind", _WHOLE)
def test_some_layers_see_the_whole_picture(kind: str) -> None:
    conv, all_of_it = receptive.table(build(parse_net(_FRONT + _rest(kind))))
    assert (conv.image.size, conv.image.whole) == (3, False)
    assert conv.image.text == "3"
    # 16 rows of conv, each 2 pixels further
    assert (all_of_it.kernel, all_of_it.image.size) == (16, 3 + 15 * 2)
    assert all_of_it.image.whole
    assert all_of_it.image.text == "whole"


def test_what_looks_at_a_whole_picture_sees_it_too() -> None:
    after = """layer { name: "last" type: "Convolution" bottom: "all" top: "last"
      convolution_param { num_output: 2 kernel_size: 1 } }"""
    rows = receptive.table(build(parse_net(_FRONT + _rest("Pooling") + after)))
    assert [row.image.whole for row in rows] == [False, True, True]


def test_the_command_says_it(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(_FRONT + _rest("Pooling"))
    command = ["rf", str(tmp_path / "net.prototxt")]
    result = CliRunner().invoke(models.main, command)
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if line.startswith("all "))
    assert line.split()[:5] == ["all", "Pooling", "16", "1", "whole"]
    found = json.loads(CliRunner().invoke(models.main, [*command, "--json"]).output)
    assert [row["whole_image"] for row in found] == [False, True]

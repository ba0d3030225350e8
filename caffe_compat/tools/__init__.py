"""``python -m caffe_compat.tools``: what the ``caffe`` program and its small tools did.

Training is ``cpm-train``, converting weights is ``cpm-convert``.

Source: ``tools/*.cpp``, ``tools/extra/parse_log.py``, ``python/draw_net.py`` of BVLC Caffe (what
they do).
"""

from __future__ import annotations

import click

from caffe_compat.commands import CommandGroup
from caffe_compat.tools.features import extract_features
from caffe_compat.tools.means import image_mean
from caffe_compat.tools.renewing import draw, upgrade_net, upgrade_solver
from caffe_compat.tools.scoring import test
from caffe_compat.tools.timing import time
from caffe_compat.tools.training_logs import parse_log_command


@click.group(cls=CommandGroup)
@click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback for bad input.")
def main() -> None:
    """What Caffe's own programs did, on prototxts and models of any age."""


for _command in (
    draw,
    extract_features,
    image_mean,
    parse_log_command,
    test,
    time,
    upgrade_net,
    upgrade_solver,
):
    main.add_command(_command)

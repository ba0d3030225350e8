"""Generates the prototxts of Convolutional Pose Machines: train_test, deploy and solver, for any
size.

With the defaults the definitions equal in meaning those that the release's ``genProto.py`` writes,
and the official deploy nets.

Source: paper section 3 and the files that the release ships (FLIC label slice at P + 1 as training
needs it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import net_from_message
from caffe_compat.definition.spec import NetSpec, SolverSpec


@dataclass(frozen=True)
class CPMConfig:
    """A pose machine.

    Attributes
    ----------
    stages, parts : number of stages, and of parts without the background.
    input_size : height and width of the input in pixels.
    towers : channels of conv1..3 (stage 1 and the shared image features).
    features : channels of the stage's image features (conv4_stage1, conv4_stage2, conv1_stage_t).
    wide : channels of conv5 and conv6 of stage 1.
    belief : channels of Mconv1..4.
    tower_kernel : kernel of conv1..3; three numbers where they differ.
    feature_kernel : kernel of conv4.
    wide_kernel : kernel of conv5; None: that of conv3.
    stage_kernel : kernel of Mconv1..3.
    feature_dilation, wide_dilation : distance of the samples of conv4 and conv5, in cells.
    dropout : of stage 1 in training; 0 leaves the layers out.
    filler : weight filler ("gaussian" with std 0.01 as released, or "msra" for narrow networks).
    first_mult : lr_mult of stage 1's weights (its biases have twice that).
    """

    stages: int = 6
    parts: int = 14
    input_size: int = 368
    towers: tuple[int, int, int] = (128, 128, 128)
    features: int = 32
    wide: int = 512
    belief: int = 128
    tower_kernel: int | tuple[int, int, int] = 9
    feature_kernel: int = 5
    stage_kernel: int = 11
    dropout: float = 0.5
    filler: Literal["gaussian", "msra"] = "gaussian"
    first_mult: float = 5.0
    wide_kernel: int | None = None
    feature_dilation: int = 1
    wide_dilation: int = 1

    @property
    def tower_kernels(self) -> tuple[int, int, int]:
        """Kernels of conv1, conv2 and conv3."""
        kernels = self.tower_kernel
        return (kernels, kernels, kernels) if isinstance(kernels, int) else kernels


@dataclass(frozen=True)
class DataConfig:
    """The CPMData layer of a training net; fields named as in Caffe's ``transform_param``."""

    source: str = "lmdb/MPI"
    batch_size: int = 16
    max_rotate_degree: float = 40.0
    scale_prob: float = 1.0
    scale_min: float = 0.7
    scale_max: float = 1.3
    target_dist: float = 1.171
    center_perterb_max: float = 0.0
    do_clahe: bool = False
    sigma_center: float | None = None
    np_in_lmdb: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class _Builder:
    """Layers of a net.

    ``supervised`` : stages that have a loss. ``frozen`` : the stages up to this one do not learn.
    """

    def __init__(self, config: CPMConfig, supervised: Sequence[int] = (), frozen: int = 0) -> None:
        self.config, self.supervised, self.frozen = config, supervised, frozen
        self.net = schema.new("NetParameter")

    def add(self, name: str, kind: str, bottoms: list[str], tops: list[str]) -> Any:
        layer = self.net.layer.add(name=name, type=kind)
        layer.bottom.extend(bottoms)
        layer.top.extend(tops)
        return layer

    def conv(
        self,
        name: str,
        bottom: str,
        outputs: int,
        kernel: int,
        mult: float,
        *,
        last: bool = False,
        dilation: int = 1,
    ) -> str:
        layer = self.add(name, "Convolution", [bottom], [name])
        for lr, decay in ((mult, 1.0), (2 * mult, 0.0)):
            layer.param.add(lr_mult=lr, decay_mult=decay)
        p = layer.convolution_param
        p.num_output = outputs
        p.pad.append(dilation * (kernel // 2))
        p.kernel_size.append(kernel)
        if dilation > 1:
            p.dilation.append(dilation)
        if self.config.filler == "msra" and not last:
            p.weight_filler.type = "msra"
        else:
            p.weight_filler.type = "gaussian"
            p.weight_filler.std = 0.01
        p.bias_filler.type = "constant"
        return name

    def relu(self, name: str, blob: str) -> None:
        self.add(name, "ReLU", [blob], [blob])

    def pool(self, name: str, bottom: str, method: int, kernel: int, stride: int) -> str:
        p = self.add(name, "Pooling", [bottom], [name]).pooling_param
        p.pool, p.kernel_size, p.stride = method, kernel, stride
        return name

    def cut(self, name: str, bottom: str, tops: list[str], point: int) -> None:
        p = self.add(name, "Slice", [bottom], tops).slice_param
        p.slice_point.append(point)
        p.axis = 1

    def mult(self, stage: int) -> float:
        """lr_mult of a stage's weights."""
        return 0.0 if stage <= self.frozen else self.config.first_mult if stage == 1 else 1.0

    def tower(self, stage: int) -> str:
        blob = "image"
        sizes = zip(self.config.towers, self.config.tower_kernels, strict=True)
        for i, (channels, kernel) in enumerate(sizes, 1):
            blob = self.conv(f"conv{i}_stage{stage}", blob, channels, kernel, self.mult(stage))
            self.relu(f"relu{i}_stage{stage}", blob)
            blob = self.pool(f"pool{i}_stage{stage}", blob, 0, 3, 2)
        return blob

    def body(self, train: bool) -> None:
        c = self.config
        maps = c.parts + 1
        self.cut("image", "data", ["image", "center_map"], 3)
        self.pool("pool_center_lower", "center_map", 1, 9, 8)
        blob = self.tower(1)
        wide_kernel = c.wide_kernel or c.tower_kernels[2]
        for i, channels, kernel, dilation in (
            (4, c.features, c.feature_kernel, c.feature_dilation),
            (5, c.wide, wide_kernel, c.wide_dilation),
            (6, c.wide, 1, 1),
        ):
            name = f"conv{i}_stage1"
            blob = self.conv(name, blob, channels, kernel, self.mult(1), dilation=dilation)
            self.relu(f"relu{i}_stage1", blob)
            if train and c.dropout and i > 4 and not self.frozen:
                layer = self.add(f"drop{i - 4}_stage1", "Dropout", [blob], [blob])
                layer.dropout_param.dropout_ratio = c.dropout
        blob = self.conv("conv7_stage1", blob, maps, 1, self.mult(1), last=True)
        self.loss(train, 1, blob, "label_1st_lower")
        shared = ""
        for stage in range(2, c.stages + 1):
            if stage == 2:
                shared = self.tower(2)
                name, relu = "conv4_stage2", "relu4_stage2"
            else:
                name, relu = f"conv1_stage{stage}", f"relu1_stage{stage}"
            features = self.conv(name, shared, c.features, c.feature_kernel, self.mult(stage))
            self.relu(relu, features)
            joined = f"concat_stage{stage}"
            layer = self.add(joined, "Concat", [features, blob, "pool_center_lower"], [joined])
            layer.concat_param.axis = 1
            blob = joined
            for i, kernel in enumerate((c.stage_kernel,) * 3 + (1,), 1):
                blob = self.conv(f"Mconv{i}_stage{stage}", blob, c.belief, kernel, self.mult(stage))
                self.relu(f"Mrelu{i}_stage{stage}", blob)
            blob = self.conv(f"Mconv5_stage{stage}", blob, maps, 1, self.mult(stage), last=True)
            self.loss(train, stage, blob, "label_lower")
        if c.stages == 1:
            self.add("silence", "Silence", ["pool_center_lower"], [])

    def loss(self, train: bool, stage: int, blob: str, label: str) -> None:
        if train and stage in self.supervised:
            self.add(f"loss_stage{stage}", "EuclideanLoss", [blob, label], [f"loss_stage{stage}"])


def deploy(config: CPMConfig) -> NetSpec:
    """The deploy net: input ``data`` 1×4×S×S, belief maps of every stage."""
    builder = _Builder(config)
    builder.net.input.append("data")
    builder.net.input_dim.extend([1, 4, config.input_size, config.input_size])
    builder.body(train=False)
    return net_from_message(builder.net)


Scheme = Literal["joint", "stage-wise", "fine-tuned", "no-supervision"]


def train_test(
    config: CPMConfig, data: DataConfig, *, supervised: Sequence[int] | None = None, frozen: int = 0
) -> NetSpec:
    """The training net with its CPMData layer, label slice and one EuclideanLoss per stage.

    Parameters
    ----------
    supervised : stages that have a loss (default: all, the paper's intermediate supervision).
    frozen : the stages up to this one do not learn (``lr_mult`` 0, no dropout).
    """
    chosen = tuple(supervised) if supervised is not None else tuple(range(1, config.stages + 1))
    builder = _Builder(config, chosen, frozen)
    layer = builder.add("data", "CPMData", [], ["data", "label"])
    t = layer.transform_param
    t.stride = 8
    for name in (
        "max_rotate_degree",
        "scale_prob",
        "scale_min",
        "scale_max",
        "target_dist",
        "center_perterb_max",
    ):
        setattr(t, name, getattr(data, name))
    t.crop_size_x = t.crop_size_y = config.input_size
    t.do_clahe = data.do_clahe
    if data.sigma_center is not None:
        t.sigma_center = data.sigma_center
    if data.np_in_lmdb is not None:
        t.num_parts, t.np_in_lmdb = config.parts, data.np_in_lmdb
    for name, value in data.extra.items():
        setattr(t, name, value)
    p = layer.cpmdata_param
    p.source, p.batch_size, p.backend = data.source, data.batch_size, 1
    builder.cut("label_lower", "label", ["label_lower", "label_1st_lower"], config.parts + 1)
    builder.body(train=True)
    for blob, used in (
        ("label_1st_lower", 1 in chosen),
        ("label_lower", any(s > 1 for s in chosen)),
    ):
        if not used and len(chosen) < config.stages:  # Caffe would print an unused blob as a result
            builder.add(f"silence_{blob}", "Silence", [blob], [])
    return net_from_message(builder.net)


def plan(config: CPMConfig, data: DataConfig, scheme: Scheme) -> dict[str, NetSpec]:
    """The training nets of a scheme of the paper's Figure 6b, in the order in which they are
    trained.

    "joint": all stages at once, a loss at each; "stage-wise": one stage after the other, those
    before it frozen; "fine-tuned": joint training that starts from the stage-wise weights;
    "no-supervision": only the last stage has a loss.

    Returns
    -------
    Suffix of the file names ("" for a joint net, "_stage1" ...) and definition.
    """
    last = range(1, config.stages + 1)
    if scheme == "no-supervision":
        return {"": train_test(config, data, supervised=[config.stages])}
    nets = {}
    if scheme in ("stage-wise", "fine-tuned"):
        for stage in last:
            part = replace(config, stages=stage)
            # stage 1 alone uses everybody's labels, a later stage the own person's
            nets[f"_stage{stage}"] = train_test(part, data, supervised=[stage], frozen=stage - 1)
    return nets if scheme == "stage-wise" else {**nets, "": train_test(config, data)}


def solver(
    net: str = "pose_train_test.prototxt", prefix: str = "caffemodel/pose", **settings: Any
) -> SolverSpec:
    """The solver definition of the release; ``settings`` override or add fields of
    ``SolverParameter``."""
    message = schema.new("SolverParameter")
    defaults: dict[str, Any] = {
        "net": net,
        "base_lr": 8e-5,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "lr_policy": "step",
        "gamma": 0.333,
        "stepsize": 136106,
        "display": 5,
        "max_iter": 600000,
        "snapshot": 1000,
        "snapshot_prefix": prefix,
        "solver_mode": 1,
    }
    for name, value in {**defaults, **settings}.items():
        if isinstance(value, list | tuple):
            getattr(message, name).extend(value)
        elif value is not None:
            setattr(message, name, value)
    return SolverSpec(message)

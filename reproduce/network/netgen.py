"""Generates the prototxts of Convolutional Pose Machines: train_test, deploy and solver, for any
size.

Two front ends: "cpm", the paper's own, and "vgg", the first layers of VGG-19 with which the
authors' later networks begin. :func:`cpm`, :func:`vgg` and :func:`person` give the released
networks' descriptions; each number of them can be changed. With the defaults the definitions equal
in meaning those that the release's ``genProto.py`` writes, and the official deploy nets.

Source: paper section 3 and the files that the release ships (FLIC label slice at P + 1 as training
needs it). The training definitions of the VGG networks were never released; here they follow the
others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from caffe_compat.definition import schema
from caffe_compat.definition.prototxt import net_from_message
from caffe_compat.definition.spec import NetSpec, SolverSpec
from caffe_compat.errors import DataError

Front = Literal["cpm", "vgg"]
_MAX, _AVE = 0, 1  # PoolingParameter's methods
_POOLS = 3  # the belief maps are eight times smaller than the image


@dataclass(frozen=True)
class CPMConfig:
    """A pose machine.

    The channels of a stage's maps are ``parts + 1``: the parts and the background. With ``parts`` 0
    the one map shows everybody's body centre (the person network).

    Attributes
    ----------
    stages, parts : number of stages, and of parts without the background.
    input_size : height and width of the input in pixels.
    towers : "cpm": channels of conv1..3 (stage 1 and the shared image features).
    features : "cpm": channels of the stage's image features (conv4_stage1, conv4_stage2,
        conv1_stage_t).
    wide : channels of the wide convolutions at the end of stage 1 ("cpm": conv5 and conv6; "vgg":
        the last but one).
    belief : channels of all Mconv layers of a later stage but the last.
    tower_kernel : "cpm": kernel of conv1..3; three numbers where they differ.
    feature_kernel : "cpm": kernel of conv4.
    wide_kernel : "cpm": kernel of conv5; None: that of conv3.
    stage_kernel : kernel of the first Mconv layers of a later stage.
    feature_dilation, wide_dilation : "cpm": distance of the samples of conv4 and conv5, in cells.
    dropout : of stage 1 in training; 0 leaves the layers out.
    filler : weight filler ("gaussian" with std 0.01 as released, or "msra" for narrow networks).
    first_mult : lr_mult of stage 1's weights (biases have twice that everywhere).
    front : where the image features come from: "cpm", towers of large kernels, or "vgg", blocks of
        3×3 convolutions, once for all stages.
    centre : does the network take a centre map beside the image?
    blocks : "vgg": (channels, layers) of each block; a pool of 2 follows each of the first three.
    front_convs : "vgg": channels of the 3×3 convolutions after the blocks; the last are the image
        features of all stages.
    stage_convs : how many Mconv layers have ``stage_kernel``; two of 1×1 follow.
    later_mult : lr_mult of the weights of stages after the first.
    batch_norm : BatchNorm and Scale layers before each activation, for networks that are trained
        from nothing; not the authors'. ``cpm-convert --merge-batch-norm`` takes them out again.
    input_width : width of the input where it is not as high as wide; 0: square.
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
    front: Front = "cpm"
    centre: bool = True
    blocks: tuple[tuple[int, int], ...] = ((64, 2), (128, 2), (256, 4), (512, 2))
    front_convs: tuple[int, ...] = (256, 256, 256, 256, 128)
    stage_convs: int = 3
    later_mult: float = 1.0
    batch_norm: bool = False
    input_width: int = 0

    def __post_init__(self) -> None:
        if self.front == "vgg" and len(self.blocks) < _POOLS:
            raise DataError(
                f"a VGG front end of {len(self.blocks)} block(s): the belief maps are eight times "
                f"smaller than the image, which takes {_POOLS} blocks with a pool after each"
            )
        if self.front == "vgg" and not self.front_convs:
            raise DataError("a VGG front end needs front_convs: the last are the image features")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> CPMConfig:
        """From what JSON keeps of a description (lists for tuples; settings that it lacks have
        their defaults)."""
        return cls(**{name: _tuples(value) for name, value in values.items()})

    @property
    def tower_kernels(self) -> tuple[int, int, int]:
        """Kernels of conv1, conv2 and conv3."""
        kernels = self.tower_kernel
        return (kernels, kernels, kernels) if isinstance(kernels, int) else kernels

    @property
    def maps(self) -> int:
        """Belief maps of each stage."""
        return self.parts + 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.input_size, self.input_width or self.input_size


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def cpm(**changes: Any) -> CPMConfig:
    """The paper's network (released models 1 to 4 as MPII's and Leeds'; FLIC's has 4 stages and 9
    parts), with changes."""
    return CPMConfig(**changes)


def vgg(**changes: Any) -> CPMConfig:
    """The network that begins as VGG-19 (released model 5), with changes."""
    values: dict[str, Any] = {
        "front": "vgg",
        "stage_kernel": 7,
        "stage_convs": 5,
        "dropout": 0.0,
        "first_mult": 1.0,
        "later_mult": 4.0,
    }
    return CPMConfig(**{**values, **changes})


def person(**changes: Any) -> CPMConfig:
    """The network that finds people (released model 6), with changes."""
    values: dict[str, Any] = {
        "stages": 4,
        "parts": 0,
        "centre": False,
        "input_size": 376,
        "input_width": 656,
        "blocks": ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1)),
        "front_convs": (128,),
    }
    return vgg(**{**values, **changes})


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

    Parameters
    ----------
    supervised : stages that have a loss.
    frozen : the stages up to this one do not learn.
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
        normalised = self.config.batch_norm and not last
        p = layer.convolution_param
        layer.param.add(lr_mult=mult, decay_mult=1.0)
        if normalised:
            p.bias_term = False
        else:
            layer.param.add(lr_mult=2 * mult, decay_mult=0.0)
            p.bias_filler.type = "constant"
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
        if normalised:
            self.batch_norm(name, mult)
        return name

    def batch_norm(self, blob: str, mult: float) -> None:
        """Normalises a convolution's blob; layers that do not learn keep their statistics."""
        layer = self.add(f"bn_{blob}", "BatchNorm", [blob], [blob])
        for _ in range(3):
            layer.param.add(lr_mult=0.0, decay_mult=0.0)
        # Caffe's 0.999 would still hold statistics of a thousand iterations ago at a snapshot
        layer.batch_norm_param.moving_average_fraction = 0.99
        if not mult:
            layer.batch_norm_param.use_global_stats = True
        layer = self.add(f"scale_{blob}", "Scale", [blob], [blob])
        for _ in range(2):
            layer.param.add(lr_mult=mult, decay_mult=0.0)
        layer.scale_param.bias_term = True

    def relu(self, name: str, blob: str) -> None:
        self.add(name, "ReLU", [blob], [blob])

    def pool(self, name: str, bottom: str, *, method: int, kernel: int, stride: int) -> str:
        p = self.add(name, "Pooling", [bottom], [name]).pooling_param
        p.pool, p.kernel_size, p.stride = method, kernel, stride
        return name

    def cut(self, name: str, bottom: str, tops: list[str], point: int) -> None:
        p = self.add(name, "Slice", [bottom], tops).slice_param
        p.slice_point.append(point)
        p.axis = 1

    def mult(self, stage: int) -> float:
        """lr_mult of a stage's weights."""
        if stage <= self.frozen:
            return 0.0
        return self.config.first_mult if stage == 1 else self.config.later_mult

    def conv_relu(
        self, name: str, bottom: str, outputs: int, kernel: int, stage: int, dilation: int = 1
    ) -> str:
        """A convolution called ...convX and its activation ...reluX."""
        blob = self.conv(name, bottom, outputs, kernel, self.mult(stage), dilation=dilation)
        self.relu(name.replace("conv", "relu", 1), blob)
        return blob

    def drop(self, number: int, blob: str, train: bool) -> None:
        """Dropout of stage 1, in training only."""
        if train and self.config.dropout and not self.frozen:
            layer = self.add(f"drop{number}_stage1", "Dropout", [blob], [blob])
            layer.dropout_param.dropout_ratio = self.config.dropout

    def tower(self, stage: int) -> str:
        """The image features before the stage's own layers, from large kernels."""
        blob = "image"
        sizes = zip(self.config.towers, self.config.tower_kernels, strict=True)
        for i, (channels, kernel) in enumerate(sizes, 1):
            blob = self.conv_relu(f"conv{i}_stage{stage}", blob, channels, kernel, stage)
            blob = self.pool(f"pool{i}_stage{stage}", blob, method=_MAX, kernel=3, stride=2)
        return blob

    def first_stage(self, train: bool) -> str:
        """Stage 1 of the "cpm" front end."""
        c = self.config
        blob = self.tower(1)
        wide_kernel = c.wide_kernel or c.tower_kernels[2]
        blob = self.conv_relu(
            "conv4_stage1", blob, c.features, c.feature_kernel, 1, c.feature_dilation
        )
        blob = self.conv_relu("conv5_stage1", blob, c.wide, wide_kernel, 1, c.wide_dilation)
        self.drop(1, blob, train)
        blob = self.conv_relu("conv6_stage1", blob, c.wide, 1, 1)
        self.drop(2, blob, train)
        return self.conv("conv7_stage1", blob, c.maps, 1, self.mult(1), last=True)

    def vgg_features(self) -> str:
        """The image features of all stages from the layers of VGG, which keep VGG's names."""
        c = self.config
        blob = "image"
        for b, (channels, layers) in enumerate(c.blocks, 1):
            for i in range(1, layers + 1):
                blob = self.conv_relu(f"conv{b}_{i}", blob, channels, 3, 1)
            if b <= _POOLS:
                blob = self.pool(f"pool{b}_stage1", blob, method=_MAX, kernel=2, stride=2)
        # these are numbered on from a block without a pool, or else as a block of their own
        number, done = _POOLS + 1, 0
        if len(c.blocks) > _POOLS:
            number, done = len(c.blocks), c.blocks[-1][1]
        for i, channels in enumerate(c.front_convs, done + 1):
            blob = self.conv_relu(f"conv{number}_{i}_CPM", blob, channels, 3, 1)
        return blob

    def vgg_first_stage(self, features: str, train: bool) -> str:
        """Stage 1 of the "vgg" front end."""
        c = self.config
        block = max(len(c.blocks), _POOLS + 1) + 1
        blob = self.conv_relu(f"conv{block}_1_CPM", features, c.wide, 1, 1)
        self.drop(1, blob, train)
        return self.conv(f"conv{block}_2_CPM", blob, c.maps, 1, self.mult(1), last=True)

    def later_stage(self, stage: int, joined: list[str]) -> str:
        """A stage that looks at the belief maps before it."""
        c = self.config
        blob = f"concat_stage{stage}"
        self.add(blob, "Concat", joined, [blob]).concat_param.axis = 1
        # the activations of the released person network are numbered from 2
        first_relu = 1 if c.parts else 2
        for i, kernel in enumerate((c.stage_kernel,) * c.stage_convs + (1,)):
            blob = self.conv(f"Mconv{i + 1}_stage{stage}", blob, c.belief, kernel, self.mult(stage))
            self.relu(f"Mrelu{i + first_relu}_stage{stage}", blob)
        last = f"Mconv{c.stage_convs + 2}_stage{stage}"
        return self.conv(last, blob, c.maps, 1, self.mult(stage), last=True)

    def body(self, train: bool) -> None:
        """Everything between data and losses."""
        c = self.config
        centre = []
        if c.centre or train:
            self.cut("image", "data", ["image", "center_map"], 3)
        if c.centre:
            centre = [self.pool("pool_center_lower", "center_map", method=_AVE, kernel=9, stride=8)]
        elif train:
            self.add("silence_center_map", "Silence", ["center_map"], [])
        shared = ""
        if c.front == "vgg":
            shared = self.vgg_features()
            blob = self.vgg_first_stage(shared, train)
        else:
            blob = self.first_stage(train)
        self.loss(train, 1, blob)
        for stage in range(2, c.stages + 1):
            if c.front == "vgg":
                joined = [blob, shared, *centre]
            else:
                if stage == 2:
                    shared = self.tower(2)
                name = "conv4_stage2" if stage == 2 else f"conv1_stage{stage}"
                features = self.conv_relu(name, shared, c.features, c.feature_kernel, stage)
                joined = [features, blob, *centre]
            blob = self.later_stage(stage, joined)
            self.loss(train, stage, blob)
        if c.stages == 1 and centre:
            self.add("silence", "Silence", centre, [])

    def label(self, stage: int) -> str:
        """The label of a stage: everybody in stage 1, which does not see the centre map, else the
        person in the middle. Without a centre map nobody is in the middle."""
        return "label_1st_lower" if stage == 1 or not self.config.centre else "label_lower"

    def loss(self, train: bool, stage: int, blob: str) -> None:
        """A stage's loss, where it has one."""
        if train and stage in self.supervised:
            name = f"loss_stage{stage}"
            self.add(name, "EuclideanLoss", [blob, self.label(stage)], [name])


def deploy(config: CPMConfig) -> NetSpec:
    """The deploy net: belief maps of every stage.

    The input is ``data`` 1×4×H×W, or ``image`` 1×3×H×W where the network takes no centre map.
    """
    builder = _Builder(config)
    name, channels = ("data", 4) if config.centre else ("image", 3)
    builder.net.input.append(name)
    builder.net.input_dim.extend([1, channels, *config.size])
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
    t.crop_size_y, t.crop_size_x = config.size
    t.do_clahe = data.do_clahe
    if data.sigma_center is not None:
        t.sigma_center = data.sigma_center
    if data.np_in_lmdb is not None:
        t.np_in_lmdb = data.np_in_lmdb
    if data.np_in_lmdb is not None or config.parts != t.num_parts:  # not the schema's 14
        t.num_parts = config.parts
    for name, value in data.extra.items():
        setattr(t, name, value)
    p = layer.cpmdata_param
    p.source, p.batch_size, p.backend = data.source, data.batch_size, 1
    builder.cut("label_lower", "label", ["label_lower", "label_1st_lower"], config.maps)
    builder.body(train=True)
    used = {builder.label(stage) for stage in chosen}
    # Caffe prints an unused blob as a result; genProto leaves its one-stage net's as it is
    quiet = len(chosen) < config.stages or not config.centre
    for blob in ("label_1st_lower", "label_lower"):
        if blob not in used and quiet:
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
    if scheme == "no-supervision":
        return {"": train_test(config, data, supervised=[config.stages])}
    nets = {}
    if scheme in ("stage-wise", "fine-tuned"):
        for stage in range(1, config.stages + 1):
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
        "display": 5,
        "max_iter": 600000,
        "snapshot": 1000,
        "snapshot_prefix": prefix,
        "solver_mode": 1,
    }
    # what the policy does not look at would only be noted as having no effect
    policy = settings.get("lr_policy", "step")
    if policy not in ("fixed", "poly"):
        defaults["gamma"] = 0.333
    if policy in ("step", "sigmoid"):
        defaults["stepsize"] = 136106
    for name, value in {**defaults, **settings}.items():
        if isinstance(value, list | tuple):
            getattr(message, name).extend(value)
        elif value is not None:
            setattr(message, name, value)
    return SolverSpec(message)

"""Old definitions made new: V0 and V1 layers, input fields, data transformations, batch norm,
solver types.

Every function changes a merged ``NetParameter`` / ``SolverParameter`` in place and raises where
Caffe only logs that a field could not be carried over: a setting that is dropped silently is a
wrong network.

Source: the rules of ``upgrade_proto.cpp`` in BVLC Caffe.
"""

from __future__ import annotations

from typing import Any

from caffe_compat.definition import schema
from caffe_compat.definition.textformat import Lines
from caffe_compat.errors import PrototxtError

# line of each field of a layer, by dotted name; "" is the layer itself
LayerLines = dict[str, int]

ROUND_CEIL, ROUND_FLOOR = 0, 1  # PoolingParameter.RoundMode

# V1 enum name -> type string of today
V1_TYPES = {
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "NONE": "",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "ROIPOOLING": "ROIPooling",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

# V0 type string -> V1 enum name
_V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}


def type_of_today(name: str) -> str:
    """The type string of today for a V0 type string or a V1 enum name; any other as it is."""
    current = _V0_TYPES.get(name, name)
    return V1_TYPES.get(current, current)


# V0 field -> {V0 type, "*" for all: (sub-message, its field, "" for the whole of it)}. For a type
# that is not listed the field has no meaning.
_V0_FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "num_output": {
        "conv": ("convolution_param", "num_output"),
        "innerproduct": ("inner_product_param", "num_output"),
    },
    "biasterm": {
        "conv": ("convolution_param", "bias_term"),
        "innerproduct": ("inner_product_param", "bias_term"),
    },
    "weight_filler": {
        "conv": ("convolution_param", "weight_filler"),
        "innerproduct": ("inner_product_param", "weight_filler"),
    },
    "bias_filler": {
        "conv": ("convolution_param", "bias_filler"),
        "innerproduct": ("inner_product_param", "bias_filler"),
    },
    "pad": {"conv": ("convolution_param", "pad"), "pool": ("pooling_param", "pad")},
    "kernelsize": {
        "conv": ("convolution_param", "kernel_size"),
        "pool": ("pooling_param", "kernel_size"),
        "im2col": ("convolution_param", "kernel_size"),
    },
    "group": {"conv": ("convolution_param", "group")},
    "stride": {
        "conv": ("convolution_param", "stride"),
        "pool": ("pooling_param", "stride"),
        "im2col": ("convolution_param", "stride"),
    },
    "pool": {"pool": ("pooling_param", "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": ("lrn_param", "local_size")},
    "alpha": {"lrn": ("lrn_param", "alpha")},
    "beta": {"lrn": ("lrn_param", "beta")},
    "k": {"lrn": ("lrn_param", "k")},
    "source": {
        "data": ("data_param", "source"),
        "hdf5_data": ("hdf5_data_param", "source"),
        "images": ("image_data_param", "source"),
        "window_data": ("window_data_param", "source"),
        "infogain_loss": ("infogain_loss_param", "source"),
    },
    "scale": {"*": ("transform_param", "scale")},
    "meanfile": {"*": ("transform_param", "mean_file")},
    "batchsize": {
        "data": ("data_param", "batch_size"),
        "hdf5_data": ("hdf5_data_param", "batch_size"),
        "images": ("image_data_param", "batch_size"),
        "window_data": ("window_data_param", "batch_size"),
    },
    "cropsize": {"*": ("transform_param", "crop_size")},
    "mirror": {"*": ("transform_param", "mirror")},
    "rand_skip": {"data": ("data_param", "rand_skip"), "images": ("image_data_param", "rand_skip")},
    "shuffle_images": {"images": ("image_data_param", "shuffle")},
    "new_height": {"images": ("image_data_param", "new_height")},
    "new_width": {"images": ("image_data_param", "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "det_fg_threshold": {"window_data": ("window_data_param", "fg_threshold")},
    "det_bg_threshold": {"window_data": ("window_data_param", "bg_threshold")},
    "det_fg_fraction": {"window_data": ("window_data_param", "fg_fraction")},
    "det_context_pad": {"window_data": ("window_data_param", "context_pad")},
    "det_crop_mode": {"window_data": ("window_data_param", "crop_mode")},
    "hdf5_output_param": {"hdf5_output": ("hdf5_output_param", "")},
}
# fields that mean the same for every V0 type
_V0_PLAIN = ("name", "type", "blobs", "blobs_lr", "weight_decay")


def _set(target: Any, name: str, value: Any) -> None:
    descriptor = target.DESCRIPTOR.fields_by_name[name]
    if schema.is_repeated(descriptor):
        getattr(target, name).append(value)
    elif descriptor.message_type is not None:
        getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)


def _v0_to_v1(net: Any, file: str, by_layer: list[LayerLines]) -> list[LayerLines]:
    """Unfold the nested ``layer`` of every V0 connection and fold padding layers into their
    readers; the lines of the layers that are left."""
    left = []
    old = [type(item).FromString(item.SerializeToString()) for item in net.layers]
    padding: dict[str, Any] = {}  # blobs whose last maker is a padding layer -> its connection
    del net.layers[:]
    for item, lines in zip(old, by_layer, strict=True):
        line = lines.get("", 0)
        if not item.HasField("layer"):
            raise PrototxtError(
                "mixes V0 layers (nested 'layer') with V1 layers",
                file=file,
                line=line,
                layer=item.name,
            )
        v0 = item.layer
        if v0.type == "padding":
            if len(item.bottom) != 1 or len(item.top) != 1:
                raise PrototxtError(
                    "a padding layer needs one bottom and one top",
                    file=file,
                    line=line,
                    layer=v0.name,
                )
            padding[item.top[0]] = item
            continue
        left.append(lines)
        made = net.layers.add()
        made.top.extend(item.top)
        for bottom in item.bottom:
            pad = padding.get(bottom)
            if pad is None:
                made.bottom.append(bottom)
                continue
            if v0.type not in ("conv", "pool"):
                raise PrototxtError(
                    "only a conv or pool layer can follow a padding layer",
                    file=file,
                    line=line,
                    layer=v0.name,
                )
            v0.pad = pad.layer.pad
            made.bottom.append(pad.bottom[0])
        for top in item.top:
            padding.pop(top, None)
        _unfold(v0, made, file, lines)
    return left


def _unfold(v0: Any, made: Any, file: str, lines: LayerLines) -> None:
    """Bring the settings of a V0 layer to a V1 layer, each where it stands today."""
    made.name = v0.name
    if v0.HasField("type"):
        if v0.type not in _V0_TYPES:
            allowed = ", ".join(sorted(_V0_TYPES))
            raise PrototxtError(
                f"unknown V0 layer type '{v0.type}'; known: {allowed}",
                file=file,
                line=lines.get("layer.type", 0),
                layer=v0.name,
            )
        types = made.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name
        made.type = types[_V0_TYPES[v0.type]].number
    made.blobs_lr.extend(v0.blobs_lr)
    made.weight_decay.extend(v0.weight_decay)
    for descriptor, value in v0.ListFields():
        if descriptor.name in _V0_PLAIN:
            continue
        homes = _V0_FIELDS.get(descriptor.name, {})
        home = homes.get(v0.type) or homes.get("*")
        if home is None:
            raise PrototxtError(
                f"has no meaning for a V0 layer of type '{v0.type}'",
                file=file,
                line=lines.get(f"layer.{descriptor.name}", 0),
                layer=v0.name,
                field=descriptor.name,
            )
        parent = getattr(made, home[0])
        if home[1]:
            _set(parent, home[1], value)
        else:
            parent.CopyFrom(value)


def _data_transformation(net: Any) -> None:
    """Move scale, mean_file, crop_size and mirror of V1 data layers into ``transform_param``."""
    homes = {
        "DATA": "data_param",
        "IMAGE_DATA": "image_data_param",
        "WINDOW_DATA": "window_data_param",
    }
    for item in net.layers:
        home = homes.get(schema.enum_name(item, "type"))
        if home is None or not item.HasField(home):
            continue
        options = getattr(item, home)
        for name in ("scale", "mean_file", "crop_size", "mirror"):
            if options.HasField(name):
                setattr(item.transform_param, name, getattr(options, name))
                options.ClearField(name)


def _v1_to_v2(net: Any) -> None:
    for item in net.layers:
        made = net.layer.add()
        if item.HasField("name"):
            made.name = item.name
        made.type = V1_TYPES[schema.enum_name(item, "type")]
        for name in ("bottom", "top", "loss_weight"):
            getattr(made, name).extend(getattr(item, name))
        for name in ("include", "exclude"):
            for rule in getattr(item, name):
                getattr(made, name).add().CopyFrom(rule)
        for name, home in (
            ("param", "name"),
            ("blobs_lr", "lr_mult"),
            ("weight_decay", "decay_mult"),
        ):
            for index, value in enumerate(getattr(item, name)):
                while len(made.param) <= index:
                    made.param.add()
                setattr(made.param[index], home, value)
        for index, mode in enumerate(item.blob_share_mode):
            while len(made.param) <= index:
                made.param.add()
            made.param[index].share_mode = mode
        for descriptor, value in item.ListFields():
            if descriptor.name.endswith("_param"):
                getattr(made, descriptor.name).CopyFrom(value)
    del net.layers[:]


def _inputs(net: Any, file: str, lines: Lines) -> list[LayerLines]:
    """Turn ``input``, ``input_dim`` and ``input_shape`` into an ``Input`` layer at the front; the
    lines of each layer that was made, one or none.

    Inputs without any shape vanish, as in Caffe: the layer that reads one reports the unknown blob.
    """
    has_shapes = bool(net.input_shape or net.input_dim)
    if has_shapes:
        rest = [type(item).FromString(item.SerializeToString()) for item in net.layer]
        first = _input_layer(net, file, lines)
        del net.layer[:]
        for item in [first, *rest]:
            net.layer.add().CopyFrom(item)
    del net.input[:], net.input_dim[:], net.input_shape[:]
    return [_input_lines(lines)] if has_shapes else []


def _input_lines(lines: Lines) -> LayerLines:
    """The lines of the ``Input`` layer that is made: what a field is made of tells its line."""
    shape = "input_shape" if ("input_shape",) in lines else "input_dim"
    sources = {"": "input", "top": "input", "input_param.shape": shape}
    return {name: lines[source,] for name, source in sources.items() if (source,) in lines}


def _input_layer(net: Any, file: str, lines: Lines) -> Any:
    """An ``Input`` layer with a network's ``input``, whose shapes stand in ``input_shape`` or, four
    numbers each, in ``input_dim``."""
    count = len(net.input)
    if net.input_shape and len(net.input_shape) < count:
        raise PrototxtError(
            f"{count} inputs need {count} input_shape, found {len(net.input_shape)}",
            file=file,
            line=lines.get(("input_shape",), 0),
        )
    if not net.input_shape and len(net.input_dim) < 4 * count:
        raise PrototxtError(
            f"{count} inputs need {4 * count} input_dim, found {len(net.input_dim)}",
            file=file,
            line=lines.get(("input_dim",), 0),
        )
    layer = schema.new("LayerParameter", name="input", type="Input")
    layer.top.extend(net.input)
    for index in range(count):
        shape = layer.input_param.shape.add()
        if net.input_shape:
            shape.CopyFrom(net.input_shape[index])
        else:
            shape.dim.extend(net.input_dim[4 * index : 4 * index + 4])
    return layer


def _ceil_mode(layer: Any, file: str, lines: LayerLines) -> None:
    """Turn NVCaffe's ``ceil_mode`` into upstream's ``round_mode``: false means FLOOR."""
    if not layer.HasField("pooling_param") or not layer.pooling_param.HasField("ceil_mode"):
        return
    options = layer.pooling_param
    wanted = ROUND_CEIL if options.ceil_mode else ROUND_FLOOR
    if options.HasField("round_mode") and options.round_mode != wanted:
        raise PrototxtError(
            "contradicts round_mode; give one of them",
            file=file,
            line=lines.get("pooling_param.ceil_mode", 0),
            layer=layer.name,
            field="ceil_mode",
        )
    options.ClearField("ceil_mode")
    options.ClearField("round_mode")
    if wanted == ROUND_FLOOR:
        options.round_mode = wanted


def _lines_by_layer(lines: Lines, field: str, count: int) -> list[LayerLines]:
    found: list[LayerLines] = [{} for _ in range(count)]
    for path, line in lines.items():
        if len(path) >= 2 and path[0] == field and isinstance(path[1], int):
            name = ".".join(part for part in path[2:] if isinstance(part, str))
            found[path[1]].setdefault(name, line)
    return found


def upgrade_net(net: Any, file: str = "", lines: Lines | None = None) -> list[LayerLines]:
    """Bring a merged ``NetParameter`` to the current format, in place.

    Parameters
    ----------
    net : the message.
    file : where it came from, for errors.
    lines : the line of every field, as :func:`~caffe_compat.definition.textformat.parse` returns
        them; None where there are none, as in a binary model.

    Returns
    -------
    The lines of every layer that ``net`` has now, in their order.

    Raises
    ------
    PrototxtError : the definition mixes formats, or has a setting that the new format cannot hold.
    """
    if net.layer and net.layers:
        raise PrototxtError(
            "has both 'layer' (type: \"Name\") and 'layers' (type: NAME) entries; use 'layer' only",
            file=file,
        )
    lines = lines or {}
    field = "layers" if net.layers else "layer"
    by_layer = _lines_by_layer(lines, field, len(getattr(net, field)))
    if any(item.HasField("layer") for item in net.layers):
        by_layer = _v0_to_v1(net, file, by_layer)
    _data_transformation(net)
    _v1_to_v2(net)
    if net.input:
        by_layer = _inputs(net, file, lines) + by_layer
    for layer, layer_lines in zip(net.layer, by_layer, strict=True):
        _ceil_mode(layer, file, layer_lines)
        # old batch norm definitions spelled out three lr_mult: 0
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            if any(param.name for param in layer.param):  # layers share their statistics
                for param in layer.param:
                    param.lr_mult = param.decay_mult = 0
            else:
                del layer.param[:]
    return by_layer


def upgrade_solver(solver: Any, file: str = "") -> None:
    """Replace the old ``solver_type`` enum by the ``type`` string, in place.

    Raises
    ------
    PrototxtError : both ``type`` and ``solver_type`` are given.
    """
    names = {
        "SGD": "SGD",
        "NESTEROV": "Nesterov",
        "ADAGRAD": "AdaGrad",
        "RMSPROP": "RMSProp",
        "ADADELTA": "AdaDelta",
        "ADAM": "Adam",
    }
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise PrototxtError(
                "give 'type' or the old 'solver_type', not both", file=file, field="solver_type"
            )
        solver.type = names[schema.enum_name(solver, "solver_type")]
        solver.ClearField("solver_type")

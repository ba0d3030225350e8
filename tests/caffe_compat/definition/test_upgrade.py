"""Definitions of any age: every old name and field by what it is called today, written out here a
second time."""

from __future__ import annotations

import pytest

from caffe_compat import parse_net
from caffe_compat.definition.prototxt import parse_solver

_V1 = """
ABSVAL AbsVal, ACCURACY Accuracy, ARGMAX ArgMax, BNLL BNLL, CONCAT Concat, CONTRASTIVE_LOSS
ContrastiveLoss, CONVOLUTION Convolution, DATA Data, DECONVOLUTION Deconvolution, DROPOUT Dropout,
DUMMY_DATA DummyData, ELTWISE Eltwise, EUCLIDEAN_LOSS EuclideanLoss, EXP Exp, FLATTEN Flatten,
HDF5_DATA HDF5Data, HDF5_OUTPUT HDF5Output, HINGE_LOSS HingeLoss, IM2COL Im2col, IMAGE_DATA
ImageData, INFOGAIN_LOSS InfogainLoss, INNER_PRODUCT InnerProduct, LRN LRN, MEMORY_DATA MemoryData,
MULTINOMIAL_LOGISTIC_LOSS MultinomialLogisticLoss, MVN MVN, POOLING Pooling, POWER Power, RELU ReLU,
ROIPOOLING ROIPooling, SIGMOID Sigmoid, SIGMOID_CROSS_ENTROPY_LOSS SigmoidCrossEntropyLoss, SILENCE
Silence, SLICE Slice, SOFTMAX Softmax, SOFTMAX_LOSS SoftmaxWithLoss, SPLIT Split, TANH TanH,
THRESHOLD Threshold, WINDOW_DATA WindowData
"""
_V0 = """
accuracy Accuracy, bnll BNLL, concat Concat, conv Convolution, data Data, dropout Dropout,
euclidean_loss EuclideanLoss, flatten Flatten, hdf5_data HDF5Data, hdf5_output HDF5Output, im2col
Im2col, images ImageData, infogain_loss InfogainLoss, innerproduct InnerProduct, lrn LRN,
multinomial_logistic_loss MultinomialLogisticLoss, pool Pooling, relu ReLU, sigmoid Sigmoid, softmax
Softmax, softmax_loss SoftmaxWithLoss, split Split, tanh TanH, window_data WindowData
"""


def _pairs(table: str) -> list[tuple[str, str]]:
    words = [entry.split() for entry in table.split(",")]
    return [(old, new) for old, new in words]


@pytest.mark.parametrize(("old", "new"), _pairs(_V1))
def test_v1_types(old: str, new: str) -> None:
    (layer,) = parse_net(f'layers {{ name: "a" type: {old} }}').layers
    assert (layer.name, layer.type) == ("a", new)


@pytest.mark.parametrize(("old", "new"), _pairs(_V0))
def test_v0_types(old: str, new: str) -> None:
    (layer,) = parse_net(f'layers {{ layer {{ name: "a" type: "{old}" }} }}').layers
    assert (layer.name, layer.type) == ("a", new)


@pytest.mark.parametrize(
    ("old", "new"),
    _pairs(
        "SGD SGD, NESTEROV Nesterov, ADAGRAD AdaGrad, RMSPROP RMSProp, ADADELTA AdaDelta, ADAM Adam"
    ),
)
def test_solver_types(old: str, new: str) -> None:
    assert parse_solver(f"solver_type: {old}").message.type == new


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("conv", "num_output: 3", "convolution_param { num_output: 3 }"),
        ("conv", "biasterm: false", "convolution_param { bias_term: false }"),
        ("conv", "pad: 1 kernelsize: 5", "convolution_param { pad: 1 kernel_size: 5 }"),
        ("conv", "group: 2 stride: 3", "convolution_param { group: 2 stride: 3 }"),
        (
            "conv",
            'weight_filler { type: "xavier" } bias_filler { value: 2 }',
            'convolution_param { weight_filler { type: "xavier" } bias_filler { value: 2 } }',
        ),
        ("innerproduct", "num_output: 3", "inner_product_param { num_output: 3 }"),
        ("innerproduct", "biasterm: false", "inner_product_param { bias_term: false }"),
        (
            "innerproduct",
            'weight_filler { type: "xavier" } bias_filler { value: 2 }',
            'inner_product_param { weight_filler { type: "xavier" } bias_filler { value: 2 } }',
        ),
        (
            "pool",
            "pool: AVE pad: 1 kernelsize: 5 stride: 3",
            "pooling_param { pool: AVE pad: 1 kernel_size: 5 stride: 3 }",
        ),
        ("im2col", "kernelsize: 5 stride: 3", "convolution_param { kernel_size: 5 stride: 3 }"),
        ("dropout", "dropout_ratio: 0.25", "dropout_param { dropout_ratio: 0.25 }"),
        (
            "lrn",
            "local_size: 3 alpha: 0.5 beta: 0.25 k: 2",
            "lrn_param { local_size: 3 alpha: 0.5 beta: 0.25 k: 2 }",
        ),
        ("concat", "concat_dim: 2", "concat_param { concat_dim: 2 }"),
        ("infogain_loss", 'source: "h"', 'infogain_loss_param { source: "h" }'),
        ("hdf5_data", 'source: "l" batchsize: 4', 'hdf5_data_param { source: "l" batch_size: 4 }'),
        (
            "hdf5_output",
            'hdf5_output_param { file_name: "f" }',
            'hdf5_output_param { file_name: "f" }',
        ),
        (
            "data",
            'source: "d" batchsize: 4 rand_skip: 7 scale: 0.5 meanfile: "m" cropsize: 9 mirror: true',
            'data_param { source: "d" batch_size: 4 rand_skip: 7 } '
            'transform_param { scale: 0.5 mean_file: "m" crop_size: 9 mirror: true }',
        ),
        (
            "images",
            'source: "d" batchsize: 4 rand_skip: 7 shuffle_images: true new_height: 8 new_width: 6 '
            'scale: 0.5 meanfile: "m" cropsize: 9 mirror: true',
            'image_data_param { source: "d" batch_size: 4 rand_skip: 7 shuffle: true new_height: 8 '
            "new_width: 6 } "
            'transform_param { scale: 0.5 mean_file: "m" crop_size: 9 mirror: true }',
        ),
        (
            "window_data",
            'source: "d" batchsize: 4 det_fg_threshold: 0.25 det_bg_threshold: 0.125 '
            'det_fg_fraction: 0.75 det_context_pad: 3 det_crop_mode: "square" cropsize: 9',
            'window_data_param { source: "d" batch_size: 4 fg_threshold: 0.25 bg_threshold: 0.125 '
            'fg_fraction: 0.75 context_pad: 3 crop_mode: "square" } transform_param { crop_size: 9 }',
        ),
        (
            "relu",
            "blobs_lr: 1 blobs_lr: 2 weight_decay: 3",
            "param { lr_mult: 1 decay_mult: 3 } param { lr_mult: 2 }",
        ),
    ],
)
def test_v0_fields(kind: str, old: str, new: str) -> None:
    made = parse_net(
        f'layers {{ layer {{ name: "a" type: "{kind}" {old} }} bottom: "x" top: "y" }}'
    )
    (found,) = made.layers
    (wanted,) = parse_net(
        f'layer {{ name: "a" type: "{found.type}" bottom: "x" top: "y" {new} }}'
    ).layers
    assert found.message == wanted.message


@pytest.mark.parametrize(
    ("old", "new", "home"),
    [
        ("DATA", "Data", "data_param"),
        ("IMAGE_DATA", "ImageData", "image_data_param"),
        ("WINDOW_DATA", "WindowData", "window_data_param"),
    ],
)
def test_v1_data_layers(old: str, new: str, home: str) -> None:
    settings = 'scale: 0.5 mean_file: "m" crop_size: 9 mirror: true'
    (found,) = parse_net(
        f'layers {{ name: "d" type: {old} top: "x" {home} {{ source: "s" {settings} }} }}'
    ).layers
    (wanted,) = parse_net(
        f'layer {{ name: "d" type: "{new}" top: "x" {home} {{ source: "s" }} '
        f"transform_param {{ {settings} }} }}"
    ).layers
    assert found.message == wanted.message


def test_v1_fields() -> None:
    (found,) = parse_net("""
        layers { name: "a" type: INNER_PRODUCT bottom: "x" top: "y" loss_weight: 2
          param: "w" param: "b" blob_share_mode: PERMISSIVE blobs_lr: 1 blobs_lr: 2
          weight_decay: 3 weight_decay: 4 include { phase: TEST } exclude { stage: "s" }
          inner_product_param { num_output: 5 } }""").layers
    (wanted,) = parse_net("""
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" loss_weight: 2
          param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 3 }
          param { name: "b" lr_mult: 2 decay_mult: 4 }
          include { phase: TEST } exclude { stage: "s" }
          inner_product_param { num_output: 5 } }""").layers
    assert found.message == wanted.message

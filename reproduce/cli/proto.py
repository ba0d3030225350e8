"""``cpm-export proto``: prototxts of any size, from a command's options."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from caffe_compat.commands import Command
from caffe_compat.errors import DataError, PrototxtError
from caffe_compat.files import write_text
from reproduce.cli.common import FILE, POSITIVE, Real, check_input_size, examples
from reproduce.runtime.locks import hold_folder

if TYPE_CHECKING:
    from caffe_compat.definition.spec import NetSpec
    from reproduce.network.netgen import CPMConfig

_LARGEST = 100_000  # of a number of channels, a kernel or a side


@click.command(
    cls=Command,
    epilog=examples(
        "cpm-export proto -o net --stages 3 --source ../leeds.lmdb",
        "cpm-export proto -o net --input 184 --front vgg --source ../leeds.lmdb --batch 8",
        "cpm-export proto -o net --scheme stage-wise --source ../leeds.lmdb",
    ),
)
@click.option("-o", "--out", required=True, type=FILE, help="Folder for the prototxts.")
@click.option(
    "--stages", type=click.IntRange(1, 64), help="Number of stages (default: 6; person: 4)."
)
@click.option("--parts", type=click.IntRange(1, 1000), help="Number of parts (default: 14).")
@click.option(
    "--part-names",
    help="Names of the parts, where they are not the authors': left_knee,right_knee,...; they are "
    "kept in the prototxts and in what is trained.",
)
@click.option(
    "--no-mirror",
    is_flag=True,
    help="Train without mirror images (flip_prob: 0): for parts that have no other side.",
)
@click.option(
    "--input",
    "size",
    help="Input size, or HEIGHTxWIDTH (default: 368; person: 376x656, and 368 in training).",
)
@click.option(
    "--front",
    type=click.Choice(["cpm", "vgg"]),
    default="cpm",
    show_default=True,
    help="The paper's front end, or the first layers of VGG-19 (the authors' later networks).",
)
@click.option(
    "--person",
    is_flag=True,
    help="vgg: the network that finds people: one map of body centres, no centre map.",
)
@click.option(
    "--centre/--no-centre", default=None, help="Take a centre map beside the image, or none."
)
@click.option(
    "--channels",
    help="cpm: channels of conv1, conv2, conv3, stage features, conv5/conv6, Mconv1..4 "
    "(default: 128,128,128,32,512,128).",
)
@click.option(
    "--kernels",
    help="cpm: kernels of conv1..3/5, of the features, of Mconv1..3 (default: 9,5,11).",
)
@click.option(
    "--blocks",
    help="vgg: channels x layers of each block (default: 64x2,128x2,256x4,512x2; person: "
    "64x2,128x2,256x4,512x4,512x1).",
)
@click.option(
    "--front-convs",
    help="vgg: channels of the 3x3 convolutions after the blocks; the last are the image features "
    "(default: 256,256,256,256,128; person: 128).",
)
@click.option("--wide", type=POSITIVE, help="Channels of stage 1's wide layers (default: 512).")
@click.option("--belief", type=POSITIVE, help="Channels of the Mconv layers (default: 128).")
@click.option(
    "--stage-kernel", type=POSITIVE, help="Kernel of the Mconv layers (default: cpm 11, vgg 7)."
)
@click.option(
    "--stage-convs",
    type=POSITIVE,
    help="How many Mconv layers have that kernel (default: cpm 3, vgg 5).",
)
@click.option(
    "--dropout",
    type=Real(0, 1),
    help="Dropout ratio of stage 1 (default: cpm 0.5, vgg none).",
)
@click.option(
    "--filler", type=click.Choice(["gaussian", "msra"]), default="gaussian", show_default=True
)
@click.option(
    "--batch-norm",
    is_flag=True,
    help="BatchNorm and Scale before each activation (not the authors'; 'cpm-convert "
    "--merge-batch-norm' takes them out after training).",
)
@click.option("--first-mult", type=Real(min=0), help="lr_mult of stage 1 (default: cpm 5, vgg 1).")
@click.option(
    "--later-mult", type=Real(min=0), help="lr_mult of the later stages (default: cpm 1, vgg 4)."
)
@click.option(
    "--source",
    default="lmdb/MPI",
    show_default=True,
    type=FILE,
    help="The LMDB of the CPMData layer.",
)
@click.option("--batch", default=16, show_default=True, type=POSITIVE, help="Batch size.")
@click.option(
    "--target-dist",
    default=1.171,
    show_default=True,
    type=Real(min=0, min_open=True),
    help="target_dist of the CPMData layer.",
)
@click.option(
    "--sigma-center",
    type=Real(min=0, min_open=True),
    help="sigma_center of the CPMData layer (default: the schema's 21).",
)
@click.option(
    "--np-in-lmdb", type=click.IntRange(1, 255), help="Joints per person in the LMDB, where not 16."
)
@click.option(
    "--scheme",
    type=click.Choice(["joint", "stage-wise", "fine-tuned", "no-supervision"]),
    default="joint",
    show_default=True,
    help="Of the paper's Figure 6b; stage-wise and fine-tuned write a solver per stage.",
)
@click.option(
    "--solver",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Solver fields to set or change, e.g. base_lr=0.001.",
)
def proto(
    out: str,
    size: str | None,
    person: bool,
    channels: str | None,
    kernels: str | None,
    blocks: str | None,
    front_convs: str | None,
    source: str,
    batch: int,
    target_dist: float,
    sigma_center: float | None,
    np_in_lmdb: int | None,
    scheme: Any,
    settings: tuple[str, ...],
    part_names: str | None,
    no_mirror: bool,
    **numbers: Any,
) -> None:
    """Write pose_train_test, pose_deploy and pose_solver prototxts of any size.

    Two architectures: the paper's (--front cpm) and the one that begins as VGG-19 (--front vgg);
    --person makes the latter one that finds people. A file that stands in the folder with another
    text, edited by hand perhaps, is not overwritten.
    """
    from reproduce.network import netgen
    from reproduce.people.part_names import named_net

    lists = {"channels": channels, "kernels": kernels, "blocks": blocks, "front_convs": front_convs}
    _check_architecture(person, part_names, lists, numbers)
    names, mirrored = _part_names(part_names, numbers["parts"], mirrored=not no_mirror)
    if names:
        numbers["parts"] = len(names)
    config = _config(person, size, lists, numbers)
    # people stand in a square crop in training, however large the pictures are later
    trained = config
    if person and size is None:
        trained = replace(config, input_size=368, input_width=0)
    data = netgen.DataConfig(
        source=source,
        batch_size=batch,
        target_dist=target_dist,
        sigma_center=sigma_center,
        np_in_lmdb=np_in_lmdb,
        extra={"flip_prob": 0.0} if no_mirror else {},
    )
    nets = {
        suffix: named_net(net, names) for suffix, net in netgen.plan(trained, data, scheme).items()
    }
    texts = _texts(nets, _solver_with(settings))
    texts["pose_deploy.prototxt"] = named_net(netgen.deploy(config), names).to_text()
    others = _write(Path(out), texts)
    click.echo(f"pose_train_test, pose_deploy and pose_solver.prototxt written to {out}")
    if mirrored:
        click.echo(mirrored)
    if others:
        click.echo(f"beside them, of another --scheme or --stages: {', '.join(others)}")
    if len(nets) > 1:
        click.echo(
            "train with: cpm-train "
            + " ".join(f"{out}/pose_solver{suffix}.prototxt" for suffix in nets)
        )


def _check_architecture(
    person: bool,
    part_names: str | None,
    lists: Mapping[str, str | None],
    numbers: Mapping[str, Any],
) -> None:
    """Refuse options that belong to another architecture than the one chosen."""
    front = numbers["front"]
    if person and (front != "vgg" or numbers["parts"] is not None or part_names is not None):
        raise DataError("--person goes with --front vgg and has no --parts")
    if front == "vgg" and not (lists["channels"] is None and lists["kernels"] is None):
        raise DataError(
            "--channels and --kernels are of --front cpm; vgg has --blocks, --front-convs, --wide, "
            "--belief, --stage-kernel"
        )
    if front == "cpm" and not (lists["blocks"] is None and lists["front_convs"] is None):
        raise DataError("--blocks and --front-convs are of --front vgg")


def _config(
    person: bool, size: str | None, lists: Mapping[str, str | None], numbers: Mapping[str, Any]
) -> CPMConfig:
    """The network that the options describe.

    Parameters
    ----------
    lists : options that hold several numbers, by name; None where not given.
    numbers : all other fields of the network; None where not given.
    """
    from reproduce.network import netgen

    changes = _of_lists(**lists)
    changes |= {name: value for name, value in numbers.items() if value is not None}
    if size is not None:
        changes["input_size"], changes["input_width"] = _size(size)
    make = netgen.vgg
    if numbers["front"] == "cpm":
        make = netgen.cpm
    elif person:
        make = netgen.person
    config = make(**changes)
    _check_kernels(config)
    return config


def _write(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """Write texts by file name; return other definitions that stand beside them."""
    with hold_folder(folder):
        others = _other_definitions(folder, texts)
        _check_overwritten(folder, texts, others)
        for file, text in texts.items():
            write_text(folder / file, text)
    return others


def _of_lists(
    channels: str | None, kernels: str | None, blocks: str | None, front_convs: str | None
) -> dict[str, Any]:
    """The network's fields that options with several numbers set; an option of one number goes
    before them."""
    fields: dict[str, Any] = {}
    if channels is not None:
        *towers, features, wide, belief = _numbers(channels, 6, "--channels")
        fields |= {"towers": tuple(towers), "features": features, "wide": wide, "belief": belief}
    if kernels is not None:
        kinds = ("tower_kernel", "feature_kernel", "stage_kernel")
        fields.update(zip(kinds, _numbers(kernels, 3, "--kernels"), strict=True))
    if blocks is not None:
        fields["blocks"] = tuple(_block(item) for item in blocks.split(","))
    if front_convs is not None:
        count = front_convs.count(",") + 1
        fields["front_convs"] = tuple(_numbers(front_convs, count, "--front-convs"))
    return fields


def _texts(nets: Mapping[str, NetSpec], solver: Any) -> dict[str, str]:
    """The texts of networks and of a solver for each, by file name.

    Parameters
    ----------
    nets : by the suffix of their names, and of their snapshots' names.
    solver : what all solvers have.
    """
    from caffe_compat.definition import textformat

    prefix = solver.snapshot_prefix
    texts = {}
    for suffix, net in nets.items():
        texts[f"pose_train_test{suffix}.prototxt"] = net.to_text()
        solver.net, solver.snapshot_prefix = f"pose_train_test{suffix}.prototxt", prefix + suffix
        texts[f"pose_solver{suffix}.prototxt"] = textformat.dump(solver)
    return texts


def _check_kernels(config: CPMConfig) -> None:
    """Refuse kernels that make maps grow: those of the stages and of the labels would differ."""
    kernels = [*config.tower_kernels, config.feature_kernel, config.stage_kernel]
    for kernel in [*kernels, config.wide_kernel or 1]:
        if kernel % 2 == 0:
            raise DataError(
                f"a kernel of {kernel}: expected odd ones, with which maps keep their size "
                "(--kernels, --stage-kernel)"
            )


def _solver_with(settings: Sequence[str]) -> Any:
    """The authors' solver with fields set as ``base_lr=0.001`` says."""
    from caffe_compat.definition import schema
    from reproduce.network import netgen

    changes = schema.new("SolverParameter")
    for item in settings:
        _set(changes, item)
    for descriptor, _ in changes.ListFields():
        if descriptor.name in ("net", "net_param", "train_net", "train_net_param"):
            what = f"--solver {descriptor.name}=..."
            raise DataError(f"{what}: the net is the one that this command writes")
    policy = {"lr_policy": changes.lr_policy} if changes.HasField("lr_policy") else {}
    solver = netgen.solver(**policy).message
    for descriptor, _ in changes.ListFields():
        solver.ClearField(descriptor.name)
    solver.MergeFrom(changes)
    return solver


def _set(message: Any, item: str) -> None:
    """Set a solver's field as ``base_lr=0.001`` says; a repeated field gets one more value.

    Raises
    ------
    DataError : it is not of this form, or the field is not there or takes no such value.
    """
    from caffe_compat.definition import textformat

    name, equals, value = item.partition("=")
    if not equals or not name.isidentifier():
        raise DataError(f"--solver {item}: expected FIELD=VALUE, such as --solver base_lr=0.001")
    descriptor = message.DESCRIPTOR.fields_by_name.get(name)
    is_text = descriptor is not None and descriptor.type == descriptor.TYPE_STRING
    plain = not is_text and re.fullmatch(r"[-+.\w]+", value) is not None
    text = value if plain else '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'
    try:
        textformat.parse(f"{name}: {text}", message, "--solver")
    except PrototxtError as error:
        raise DataError(f"--solver {item}: {error.reason}") from None


def _other_definitions(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """Names of the definitions in a folder that another ``--scheme`` or number of stages wrote."""
    pattern = re.compile(r"pose_(train_test|solver)(_stage\d+)?\.prototxt")
    inside = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in inside if pattern.fullmatch(name) and name not in texts]


def _check_overwritten(folder: Path, texts: Mapping[str, str], others: Sequence[str]) -> None:
    """See that no file with another text would be lost.

    Parameters
    ----------
    texts : what is to be written, by name.
    others : definitions that would stand beside it and do not belong to it.

    Raises
    ------
    DataError : names the files.
    """
    found = [name for name, text in texts.items() if _has_another_text(folder / name, text)]
    if not found:
        return
    beside = f" (there too, and not of this --scheme: {', '.join(others)})" if others else ""
    exist, them = "exists already with another text", "it"
    if len(found) > 1:
        exist, them = "exist already with other texts", "them"
    raise DataError(
        f"{folder}: {', '.join(found)} {exist}{beside}; remove {them} or choose another folder "
        "with -o"
    )


def _has_another_text(path: Path, text: str) -> bool:
    """Whether something that is not this text has a name already."""
    try:
        return path.read_bytes() != text.encode()
    except OSError:
        return os.path.lexists(path)


def _part_names(
    text: str | None, count: int | None, *, mirrored: bool
) -> tuple[tuple[str, ...], str]:
    """The parts' names of ``nose,left_hand,right_hand``, as many as ``--parts`` says; and what is
    to be said of their mirror images."""
    from reproduce.people.skeletons import mirror_text, named

    names = tuple(text.split(",")) if text is not None else ()
    if not names:
        return (), ""
    made = named(names, mirrored=mirrored, where="--part-names", instead="give --no-mirror")
    if count not in (None, len(names)):
        raise DataError(f"--part-names: names {len(names)} part(s), --parts says {count}")
    return names, mirror_text(made) if mirrored else ""


def _size(text: str) -> tuple[int, int]:
    """Height and width (0: the same) of ``368`` or ``376x656``."""
    sides = text.lower().split("x")
    found = _positive(sides)
    if found is None or len(sides) > 2:
        raise DataError(f"--input: expected HEIGHTxWIDTH, or one number for both, found '{text}'")
    for side in found:
        check_input_size(side)
    return found[0], 0 if found[-1] == found[0] else found[-1]


def _block(text: str) -> tuple[int, int]:
    """Channels and layers of ``256x4``."""
    found = _positive(text.lower().split("x"))
    if found is None or len(found) != 2:
        raise DataError(
            f"--blocks: expected CHANNELSxLAYERS with commas between blocks, found '{text}'"
        )
    return found[0], found[1]


def _numbers(text: str, count: int, option: str) -> list[int]:
    """So many numbers with commas between."""
    found = _positive(text.split(","))
    if found is None or len(found) != count:
        raise DataError(
            f"{option}: expected {count} positive numbers with commas between, found '{text}'"
        )
    return found


def _positive(words: Sequence[str]) -> list[int] | None:
    """Words as numbers from 1 on; None where one is none."""
    try:
        found = [int(word) for word in words]
    except ValueError:
        return None
    return found if min(found) >= 1 and max(found) <= _LARGEST else None

"""The options of a target: how its file takes images and what it contains besides the network.

One table says which format has which option. The CRD, the parser, the command line and docs/options.md read it. A file
without options is the same as before there were any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from modelexport.matrix.support import ARCHITECTURES, Architecture, Format, Precision, Target, Task

BATCH_LIMIT = 64
OPSETS = (13, 21)
"""The lowest and highest version of ONNX's operators: per-channel INT8 needs 13, and 21 is what ONNX Runtime 1.20 to
1.32 run without a warning (https://onnxruntime.ai/docs/reference/compatibility.html)."""
OPSET_OF_16_BITS = 21
"""The first version of ONNX's operators that quantise to 16 bits."""
TARGET_NAME_LIMIT = 20
TARGET_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
TARGETS_LIMIT = 32
"""Targets of an export: those of the matrix, and some of them again with other options."""


class Layout(StrEnum):
    """Order of the axes of the image that a file takes."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class InputType(StrEnum):
    """Type of the numbers of the image that a file takes."""

    FLOAT32 = "float32"
    UINT8 = "uint8"
    INT8 = "int8"


class PreprocessingPlace(StrEnum):
    """Whether the file scales and normalises pixels of 0 to 255, or takes values that are prepared outside of it."""

    INSIDE = "Inside"
    OUTSIDE = "Outside"


class InputKind(StrEnum):
    """What a Core ML file takes: an image of Apple's frameworks, or a tensor (``MLMultiArray``)."""

    IMAGE = "Image"
    TENSOR = "Tensor"


class DeploymentTarget(StrEnum):
    """The oldest system that runs a Core ML file: an iOS, or the other systems of its year, such as macOS 13 for 16."""

    IOS15 = "iOS15"
    IOS16 = "iOS16"
    IOS17 = "iOS17"
    IOS18 = "iOS18"


CHANGED_AFTERWARDS = (Format.ONNX, Format.LITERT)
"""The formats whose input is changed in the finished file, after it was quantised."""
DEPLOYMENT_TARGET = DeploymentTarget.IOS16
"""That of files without the option: the first with 8-bit weights."""


@dataclass(frozen=True)
class Options:
    """The options of a target; what is not set is as in a file without options. ``OPTIONS`` describes them."""

    batch: int | None = None
    dynamic_batch: bool = False
    dynamic_size: bool = False
    opset: int | None = None
    layout: Layout | None = None
    input_type: InputType | None = None
    preprocessing: PreprocessingPlace | None = None
    input: InputKind | None = None
    deployment_target: DeploymentTarget | None = None
    classifier: bool = False
    nms: bool = False
    labels: bool = False

    def __bool__(self) -> bool:
        return self != NO_OPTIONS

    def to_dict(self) -> dict[str, str | int | bool]:
        """Return the options that are set, by the names of the API."""
        names = {option.attribute: name for name, option in OPTIONS.items()}
        found = {names[field.name]: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in found.items() if value}

    def __str__(self) -> str:
        """Return the options as the command line takes them: ``opset=17,inputType=uint8``."""
        return ",".join(
            f"{name}={str(value).lower() if value is True else value}" for name, value in self.to_dict().items()
        )

    def of_network(self, fmt: Format) -> "Options":
        """Return the options of the network, without those that change a finished file of a format."""
        preprocessing = None if fmt in CHANGED_AFTERWARDS else self.preprocessing
        return replace(self, layout=None, input_type=None, preprocessing=preprocessing, labels=False)

    @property
    def takes_several(self) -> bool:
        """Whether the file takes several images at once."""
        return self.dynamic_batch or self.batch is not None

    @property
    def takes_pixels(self) -> bool:
        """Whether the file takes pixels of 0 to 255, and scales and normalises them itself."""
        return (
            self.input_type is InputType.UINT8
            or self.preprocessing is PreprocessingPlace.INSIDE
            or self.input is InputKind.IMAGE
        )

    @property
    def channels_last(self) -> bool:
        """Whether the channels are the last axis of the image."""
        return self.layout is Layout.NHWC


NO_OPTIONS = Options()


@dataclass(frozen=True)
class Option:
    """A row of the table.

    Attributes:
        attribute: its field in ``Options``.
        kind: ``bool``, an enum, or the lowest and highest whole number.
        formats: the formats that have it.
        meaning: what it does.
        default: what a file without it has.
        reshaped: whether it needs a network that takes several images at once, or images of any size.
        anchored: whether it needs a detector that leaves the suppression of boxes to the user of its file.
        classifying: whether it needs a network that classifies images.
        labelled: whether it needs classes whose names are known.
    """

    attribute: str
    kind: type[bool] | type[StrEnum] | tuple[int, int]
    formats: tuple[Format, ...]
    meaning: str
    default: str
    reshaped: bool = False
    anchored: bool = False
    classifying: bool = False
    labelled: bool = False

    def describe_values(self) -> str:
        """Return the values that it takes, as words."""
        if self.kind is bool:
            return "true"
        if isinstance(self.kind, tuple):
            return f"{self.kind[0]} to {self.kind[1]}"
        return ", ".join(word for word in self.kind.__members__.values() if isinstance(word, str))

    @property
    def in_all_formats(self) -> bool:
        """Whether every format has it."""
        return len(self.formats) == len(Format)

    def list_formats(self) -> str:
        """Return the formats that have it, as words."""
        return "all formats" if self.in_all_formats else ", ".join(self.formats)

    def refuses(self, row: Architecture) -> bool:
        """Return whether the networks of an architecture cannot have it."""
        leaves_boxes = row.task is Task.DETECTION and not row.has_nms
        classifies = row.task is Task.CLASSIFICATION
        return (
            (self.reshaped and not takes_any_shape(row))
            or (self.anchored and not leaves_boxes)
            or (self.classifying and not classifies)
            or (self.labelled and row.task is Task.UNKNOWN)
        )


def takes_any_shape(row: Architecture) -> bool:
    """Return whether the networks of an architecture take several images at once, and images of any size.

    Networks that suppress boxes choose them from one image, by ranks among the anchors of one size, and the program of
    a ``Custom`` model has a fixed shape.
    """
    return not row.has_nms and row.task is not Task.UNKNOWN


OPTIONS: Mapping[str, Option] = {
    "batch": Option(
        "batch",
        (1, BATCH_LIMIT),
        tuple(Format),
        "Number of images that the file takes at once; outputs have as many rows.",
        "1",
        reshaped=True,
    ),
    "dynamicBatch": Option(
        "dynamic_batch",
        bool,
        (Format.ONNX,),
        "Whether the file takes any number of images at once: the first axis of input and outputs is open.",
        "false",
        reshaped=True,
    ),
    "dynamicSize": Option(
        "dynamic_size",
        bool,
        (Format.ONNX,),
        "Whether the file takes images of any height and width that are multiples of the network's stride: these axes "
        "of input and maps are open, and so is the number of anchors.",
        "false",
        reshaped=True,
    ),
    "opset": Option(
        "opset", OPSETS, (Format.ONNX,), "Version of ONNX's operators, for older or newer runtimes.", "17, 21 in W8A16"
    ),
    "layout": Option(
        "layout",
        Layout,
        (Format.ONNX, Format.LITERT),
        "Order of the axes of the image: NHWC is (batch, height, width, channels), as cameras and decoders give it.",
        "NCHW",
    ),
    "inputType": Option(
        "input_type",
        InputType,
        (Format.ONNX, Format.LITERT),
        "Type of the image: uint8 takes pixels of 0 to 255, which the file scales and normalises. int8, for "
        "LiteRT/INT8 with calibration, takes prepared values, quantised by the scale and zero point in the metadata.",
        "float32",
    ),
    "preprocessing": Option(
        "preprocessing",
        PreprocessingPlace,
        tuple(Format),
        "Inside: the file takes pixels of 0 to 255, of the type inputType, and scales and normalises them.",
        "Outside, with inputType uint8 or input Image Inside",
    ),
    "input": Option(
        "input",
        InputKind,
        (Format.COREML,),
        "Image: the file takes an image (CVPixelBuffer, CGImage) in RGB or grey, as Vision and Xcode's preview give "
        "it, and scales and normalises its pixels.",
        "Tensor",
    ),
    "deploymentTarget": Option(
        "deployment_target",
        DeploymentTarget,
        (Format.COREML,),
        "Oldest iOS that runs the file; iOS15 to iOS18 are macOS 12 to 15. Newer ones know more operators.",
        DEPLOYMENT_TARGET,
    ),
    "classifier": Option(
        "classifier",
        bool,
        (Format.COREML,),
        "Whether the file gives the best class by its name and the probability of each, as Xcode's preview and Vision "
        "(VNClassificationObservation) expect, in place of a tensor.",
        "false",
        classifying=True,
    ),
    "nms": Option(
        "nms",
        bool,
        (Format.ONNX, Format.LITERT, Format.COREML),
        "Whether the file suppresses overlapping boxes itself, best first: ONNX and LiteRT give boxes, scores, labels "
        "and count, as torchvision's detectors do; Core ML confidence and coordinates, which Vision reads as "
        "VNRecognizedObjectObservation.",
        "false",
        anchored=True,
    ),
    "labels": Option(
        "labels",
        bool,
        (Format.LITERT,),
        "Whether the file has class names and normalisation where MediaPipe, TensorFlow Lite's task library and "
        "Android Studio look for them.",
        "false",
        labelled=True,
    ),
}
"""The options by their names in the API."""

UPRIGHT_ONLY = ", as ONNX, LiteRT and Core ML suppress upright boxes only (docs/reading-files.md has a program)"
"""Why files cannot suppress rotated boxes."""

_ONE_IMAGE = "{} and nms exclude each other: boxes are suppressed in one image; remove one"

CONFLICTS: tuple[tuple[Mapping[str, object], Mapping[str, object], str], ...] = (
    ({"batch": None}, {"nms": True}, _ONE_IMAGE.format("batch")),
    ({"dynamicBatch": True}, {"nms": True}, _ONE_IMAGE.format("dynamicBatch")),
    ({"batch": None}, {"dynamicBatch": True}, "batch and dynamicBatch exclude each other; remove one"),
    (
        {"batch": None},
        {"input": InputKind.IMAGE},
        "batch and input Image exclude each other: Core ML takes images one at a time; remove one",
    ),
    (
        {"batch": None},
        {"classifier": True},
        "batch and classifier exclude each other: Core ML classifies one image; remove one",
    ),
    (
        {"batch": None},
        {"labels": True},
        "batch and labels exclude each other: libraries that read labels give one image; remove one",
    ),
    (
        {"input": InputKind.IMAGE},
        {"preprocessing": PreprocessingPlace.OUTSIDE},
        "input Image needs preprocessing Inside: Vision gives pixels; remove one",
    ),
    (
        {"inputType": InputType.UINT8},
        {"preprocessing": PreprocessingPlace.OUTSIDE},
        "inputType uint8 needs preprocessing Inside: normalised values are no whole numbers; remove one",
    ),
    (
        {"inputType": InputType.INT8},
        {"preprocessing": PreprocessingPlace.INSIDE},
        "inputType int8 needs preprocessing Outside: it takes quantised values; remove one, or set inputType: uint8",
    ),
)
"""Pairs of options that exclude each other, each by value (``None``: any), and the message."""

EXCLUDED_PRECISIONS: tuple[tuple[Mapping[str, object], Precision, str], ...] = (
    (
        {"deploymentTarget": DeploymentTarget.IOS15},
        Precision.INT8,
        "deploymentTarget iOS15 and INT8 exclude each other: 8-bit weights need iOS16; choose iOS16, or FP16",
    ),
    (
        {"opset": range(OPSETS[0], OPSET_OF_16_BITS)},
        Precision.W8A16,
        f"an opset below {OPSET_OF_16_BITS} and W8A16 exclude each other: it has no 16-bit activations; choose "
        f"{OPSET_OF_16_BITS}, or INT8",
    ),
)
"""Options that a precision rules out, each by value or range of values, and the message."""

REQUIREMENTS: tuple[tuple[Mapping[str, object], Mapping[str, object], str], ...] = (
    (
        {"labels": True},
        {"layout": Layout.NHWC},
        "labels needs layout NHWC: libraries that read labels give images with channels last; set it, or remove labels",
    ),
)
"""Options that others need, by value (``None``: any), and the message."""


CALIBRATED: tuple[tuple[Mapping[str, object], Format, Precision, str], ...] = (
    (
        {"inputType": InputType.INT8},
        Format.LITERT,
        Precision.INT8,
        "inputType int8 needs LiteRT/INT8 and spec.calibration, whose images give the scale; choose and set them, or "
        "remove it",
    ),
)
"""Options that need calibration images and one format and precision, by value, and the message."""


def problems(architecture: str, target: Target, options: Options, *, calibrated: bool) -> Iterator[tuple[str, str]]:
    """Yield each option that a target cannot have, with the reason and the way out."""
    row, given = ARCHITECTURES[architecture], options.to_dict()
    for name, value in given.items():
        option = OPTIONS[name]
        if target.format not in option.formats:
            yield name, describe_formats(name)
        elif option.refuses(row):
            why = UPRIGHT_ONLY if option.anchored and row.task is Task.ORIENTED_DETECTION else ""
            shown = str(value).lower() if value is True else value
            yield name, f"{shown} is not possible for {row.name}{why}; remove it"
    for first, second, message in CONFLICTS:
        if _holds(first, given) and _holds(second, given):
            yield next(iter(second)), message
    for wanted, precision, message in EXCLUDED_PRECISIONS:
        if target.precision is precision and _holds(wanted, given):
            yield next(iter(wanted)), message
    for first, second, message in REQUIREMENTS:
        if _holds(first, given) and not _holds(second, given):
            yield next(iter(first)), message
    for values, fmt, precision, message in CALIBRATED:
        if _holds(values, given) and not (calibrated and target.unnamed == Target(fmt, precision)):
            yield next(iter(values)), message


def describe_formats(name: str) -> str:
    """Return the message about an option of another format."""
    return f"is an option of {' and '.join(OPTIONS[name].formats)} only; remove it, or choose that format"


def refused_by(option: Option) -> tuple[str, ...]:
    """Return the architectures that cannot have an option."""
    return tuple(row.name for row in ARCHITECTURES.values() if option.refuses(row))


def options_of(fmt: Format) -> Mapping[str, Option]:
    """Return the options of a format."""
    return {name: option for name, option in OPTIONS.items() if fmt in option.formats}


def _holds(wanted: Mapping[str, object], given: Mapping[str, object]) -> bool:
    return all(
        name in given and (given[name] in value if isinstance(value, range) else value in (None, given[name]))
        for name, value in wanted.items()
    )

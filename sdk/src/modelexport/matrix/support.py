"""The support matrix: the one table of what ModelExport converts, and how.

The CRD's enums and rules, the planner, the converter, the documents and ``modelexport matrix`` all read it. Adding an
architecture is a row in ``ARCHITECTURES`` and one file in the converter.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import ceil

from modelexport.measured import Numbers, last_run


class Format(StrEnum):
    """File format of an artifact."""

    LITERT = "LiteRT"
    ONNX = "ONNX"
    COREML = "CoreML"


class Precision(StrEnum):
    """Numeric precision of an artifact's weights."""

    FP32 = "FP32"
    FP16 = "FP16"
    INT8 = "INT8"


class Task(StrEnum):
    """What a model does with a picture."""

    DETECTION = "detection"
    INSTANCE_SEGMENTATION = "instance segmentation"
    SEMANTIC_SEGMENTATION = "semantic segmentation"
    CLASSIFICATION = "classification"
    KEYPOINTS = "keypoints"
    UNKNOWN = "unknown"


class SupportLevel(StrEnum):
    """Stable cells are what users of comparable products know; Extended ones have to be asked for."""

    STABLE = "Stable"
    EXTENDED = "Extended"


class Scheme(StrEnum):
    """How numbers are stored and computed; the INT8 names follow ai-edge-quantizer's recipes.

    ``wi8`` is weights as 8-bit integers, ``ai8`` activations as 8-bit integers, ``afp32`` activations in float32,
    ``afp16`` in float16.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    DYNAMIC_WI8_AFP32 = "dynamic_wi8_afp32"
    WEIGHT_ONLY_WI8_AFP16 = "weight_only_wi8_afp16"
    STATIC_WI8_AI8 = "static_wi8_ai8"

    @property
    def needs_calibration(self) -> bool:
        """Whether activation ranges have to be measured on pictures."""
        return self is Scheme.STATIC_WI8_AI8


@dataclass(frozen=True, order=True)
class Target:
    """One artifact that a user can ask for: a format and a precision."""

    format: Format
    precision: Precision

    def __str__(self) -> str:
        return f"{self.format}/{self.precision}"

    @property
    def slug(self) -> str:
        """The target as part of a name or a path: ``litert-int8``."""
        return f"{self.format}-{self.precision}".lower()


@dataclass(frozen=True)
class Backend:
    """What one format needs: its file, its converter and where that converter runs.

    ``data_free`` and ``calibrated`` are the INT8 schemes without and with calibration pictures. ``half_first`` says
    that a file has its precision from the conversion on, so that what is smaller than FP32 is never made from FP32.
    ``cpu_architectures`` are Kubernetes' names of the CPUs for which the converter's packages exist, ``tools`` the
    packages that make its files. ``suits`` says what hardware each precision is for.
    """

    format: Format
    impl: str
    suffix: str
    data_free: Scheme
    calibrated: Scheme
    cpu_architectures: tuple[str, ...]
    tools: tuple[str, ...]
    suits: Mapping[Precision, str]
    half_first: bool = False

    def scheme(self, precision: Precision, *, calibrated: bool) -> Scheme:
        """The scheme of a precision, given whether the user named calibration pictures."""
        if precision is Precision.INT8:
            return self.calibrated if calibrated else self.data_free
        return Scheme(precision.lower())

    def base(self, scheme: Scheme) -> Scheme:
        """The scheme in which a model is converted before its file is quantised by ``scheme``."""
        return Scheme.FP16 if self.half_first and scheme is not Scheme.FP32 else Scheme.FP32


@dataclass(frozen=True)
class Threshold:
    """What the produced file must reach against the original model in FP32 to be published."""

    metric: str
    minimum: float


MOST_MEMORY_MIB = 4096
MEMORY_MARGIN, MEMORY_STEP_MIB = 0.25, 256


@dataclass(frozen=True)
class Resources:
    """What one conversion asks of a node: memory in MiB, scratch disk in MiB (request and limit), CPU in millicores.

    Memory is requested as a model of the measured size needs it. Its limit is the same for all cells, so that larger
    variants of an architecture (YOLOv8x beside the measured YOLOv8n, ResNet-101 beside ResNet-50) have room to grow.
    """

    memory_mib: int
    memory_limit_mib: int = MOST_MEMORY_MIB
    disk_mib: int = 4096
    cpu_millis: int = 1000

    def for_peak(self, peak_mib: float) -> "Resources":
        """The same with the memory of a measured peak and a quarter more, in steps of 256 MiB, up to the limit."""
        needed = ceil(peak_mib * (1 + MEMORY_MARGIN) / MEMORY_STEP_MIB) * MEMORY_STEP_MIB
        return replace(self, memory_mib=min(needed, self.memory_limit_mib))


@dataclass(frozen=True)
class Architecture:
    """One row of the matrix.

    ``variants`` are the networks of this name, by size (``n``) or by backbone (``resnet50``); without any, the name
    says it all. ``default_input_size`` is (height, width) in pixels; both must be multiples of ``stride``.
    ``suppresses`` says that the files themselves drop faint and overlapping boxes, so that thresholds can be given.
    ``freezes`` says that its normalisation may be frozen, at an epsilon that no checkpoint tells, which can be given.
    ``activations`` are those that its builder can be told to use; ``takes`` names the further
    parameters in ``spec.model.parameters`` by which a user says what the weights do not.
    ``resources`` are those of cells that no run has measured.
    """

    name: str
    task: Task
    impl: str
    variants: tuple[str, ...]
    default_input_size: tuple[int, int]
    stride: int
    suppresses: bool = False
    freezes: bool = False
    activations: tuple[str, ...] = ()
    takes: frozenset[str] = frozenset()
    extended: frozenset[Target] = frozenset()
    thresholds: Mapping[Precision, Threshold] = field(default_factory=dict)
    resources: Resources = Resources(memory_mib=3072)

    def refusal(self, asked: Collection[Target]) -> str:
        """Why ``asked``, which are Extended cells of this row, are refused at the level Stable, and the way out."""
        stable = name_targets(target for target in TARGETS if target not in self.extended)
        names = name_targets(asked)
        verb = "are" if len(names) > 1 else "is"
        return (
            f"{', '.join(names)} {verb} not in the stable matrix for {self.name} (stable: {', '.join(stable)}); "
            "set spec.supportLevel: Extended"
        )


@dataclass(frozen=True)
class Cell:
    """Everything that is known of one architecture in one format and precision."""

    architecture: Architecture
    backend: Backend
    target: Target
    level: SupportLevel
    threshold: Threshold

    def __str__(self) -> str:
        return f"{self.architecture.name} {self.target}"

    @property
    def numbers(self) -> Numbers:
        """What the last run of ``make matrix`` has measured."""
        return last_run().of(str(self))

    @property
    def resources(self) -> Resources:
        """What a conversion asks of a node, by what the full-size model needed."""
        full_size = self.numbers.full_size
        return self.architecture.resources.for_peak(full_size.peak_mib) if full_size else self.architecture.resources

    def scheme(self, *, calibrated: bool) -> Scheme:
        """The scheme of this cell, given whether the user named calibration pictures."""
        return self.backend.scheme(self.target.precision, calibrated=calibrated)


BACKENDS: Mapping[Format, Backend] = {
    row.format: row
    for row in (
        Backend(
            format=Format.LITERT,
            impl="modelexport_converter.backends.litert",
            suffix=".tflite",
            data_free=Scheme.DYNAMIC_WI8_AFP32,
            calibrated=Scheme.STATIC_WI8_AI8,
            cpu_architectures=("amd64",),
            tools=("torch", "litert-torch", "litert-converter", "ai-edge-quantizer", "ai-edge-litert"),
            suits={
                Precision.FP32: "CPU, GPU",
                Precision.FP16: "GPU; no faster than FP32 on a CPU, which computes in FP32 from half the bytes",
                Precision.INT8: "CPU, NPU; costs some accuracy",
            },
        ),
        Backend(
            format=Format.ONNX,
            impl="modelexport_converter.backends.onnx",
            suffix=".onnx",
            data_free=Scheme.DYNAMIC_WI8_AFP32,
            calibrated=Scheme.STATIC_WI8_AI8,
            cpu_architectures=("amd64", "arm64"),
            tools=("torch", "onnx", "onnxscript", "onnxruntime"),
            suits={
                Precision.FP32: "CPU, GPU",
                Precision.FP16: "GPU, NPU; slower than FP32 on most CPUs",
                Precision.INT8: "CPU with 8-bit dot products, NPU; costs some accuracy",
            },
        ),
        Backend(
            format=Format.COREML,
            impl="modelexport_converter.backends.coreml",
            suffix=".mlpackage.zip",
            # Half precision is what the Neural Engine computes in; a program in float32 would keep to CPU and GPU.
            data_free=Scheme.WEIGHT_ONLY_WI8_AFP16,
            calibrated=Scheme.WEIGHT_ONLY_WI8_AFP16,
            cpu_architectures=("amd64",),
            tools=("torch", "coremltools"),
            suits={
                Precision.FP32: "CPU and GPU of Apple devices, not the Neural Engine",
                Precision.FP16: "Neural Engine and GPU of Apple devices",
                Precision.INT8: "as FP16, in half the bytes; costs some accuracy",
            },
            half_first=True,
        ),
    )
}

# Measured on the trained models of tests/models, at the size of their training. Correct files agree by at least
# .99999 in FP32 (pixels scaled by .9 instead of 1: .97 to .999), by .9985 in FP16 (bfloat16: .986 to .999) and by
# .979 in INT8, segmentation by .91. Files known to be wrong reach less: half a cell's shift of the boxes .84, one
# convolution with a tenth of noise .83, class order and missing division by 255 below 0. A model that is run at a
# size it has not learned reacts more to INT8 (.75 to .88 at four times the size): that its file is refused is the
# answer, not an error.
_YOLOV8_THRESHOLDS: Mapping[Precision, Threshold] = {
    Precision.FP32: Threshold("agreement", 0.9999),
    Precision.FP16: Threshold("agreement", 0.99),
    Precision.INT8: Threshold("agreement", 0.85),
}
# Prototypes have no nonlinearity after them that forgives errors, and lose most; the masks lose .004 mAP50-95 at .91.
_YOLOV8_SEG_THRESHOLDS = {**_YOLOV8_THRESHOLDS, Precision.INT8: Threshold("agreement", 0.8)}


_NORMALISES = frozenset({"imageMean", "imageStd"})
_ANCHORS = frozenset({"anchorSizes", "aspectRatios"})
# What ultralytics' networks are published with or people set in their .yaml files.
_YOLOV8_ACTIVATIONS = ("SiLU", "ReLU", "LeakyReLU", "Hardswish", "Mish")


def _yolov8(
    name: str, task: Task, input_size: int = 640, thresholds: Mapping[Precision, Threshold] = _YOLOV8_THRESHOLDS
) -> Architecture:
    return Architecture(
        name=name,
        task=task,
        impl="modelexport_converter.architectures.yolov8",
        variants=("n", "s", "m", "l", "x"),
        default_input_size=(input_size, input_size),
        stride=32,
        activations=_YOLOV8_ACTIVATIONS,
        thresholds=thresholds,
    )


_COREML = frozenset(Target(Format.COREML, precision) for precision in Precision)
# Measured on the trained SSDlite: correct files agree by .9999998 in FP32, by .9996 in FP16 and by .985 in INT8. Files
# known to be wrong reach less: pixels scaled by 1.25 .981, boxes shifted by two pixels of 160 .82, the best detection
# lost .76, two classes exchanged .37.
_DETECTOR_THRESHOLDS: Mapping[Precision, Threshold] = {
    Precision.FP32: Threshold("agreement", 0.9999),
    Precision.FP16: Threshold("agreement", 0.995),
    Precision.INT8: Threshold("agreement", 0.9),
}


def _torchvision_detector(
    name: str,
    variants: tuple[str, ...],
    input_size: int = 640,
    *,
    task: Task = Task.DETECTION,
    extended: frozenset[Target] = _COREML,
    takes: frozenset[str] = _NORMALISES | _ANCHORS,
) -> Architecture:
    return Architecture(
        name=name,
        task=task,
        impl="modelexport_converter.architectures.torchvision_detectors",
        variants=variants,
        default_input_size=(input_size, input_size),
        stride=32,
        suppresses=True,
        freezes=True,
        takes=takes | {"detectionsPerImage"},
        extended=extended,
        thresholds=_DETECTOR_THRESHOLDS,
    )


# Correct files of the trained YOLOX agree by .998 in FP16 and by .94 in INT8; with half a cell's shift they reach .839,
# with red and blue exchanged .829, with a fifth of noise in one convolution .816, with classes in another order or
# pixels not divided by 255 less than 0. Pixels scaled by .9 (.949) are told from correct ones in FP16 only.
_YOLOX_THRESHOLDS = {**_YOLOV8_THRESHOLDS, Precision.INT8: Threshold("agreement", 0.87)}

_RESNETS, _MOBILENETS = ("resnet50", "resnet101"), ("mobilenet_v3_large", "mobilenet_v3_small")
_PYRAMIDS = ("resnet18", "resnet34", *_RESNETS, "resnet152")
_MASKS_EXTENDED = _COREML | {Target(Format.LITERT, Precision.INT8), Target(Format.ONNX, Precision.FP16)}
# Correct files of the trained U-Net agree by at least .999999 in FP32, .9998 in FP16 and .992 in INT8; the minima are
# those of YOLOv8, below which a file is known to be wrong there.
_SEMANTIC_THRESHOLDS: Mapping[Precision, Threshold] = {
    Precision.FP32: Threshold("agreement", 0.9999),
    Precision.FP16: Threshold("agreement", 0.99),
    Precision.INT8: Threshold("agreement", 0.85),
}


def _semantic(
    name: str,
    impl: str,
    variants: tuple[str, ...],
    input_size: int,
    stride: int,
    *,
    takes: frozenset[str] = _NORMALISES,
) -> Architecture:
    return Architecture(
        name=name,
        task=Task.SEMANTIC_SEGMENTATION,
        impl=f"modelexport_converter.architectures.{impl}",
        variants=variants,
        default_input_size=(input_size, input_size),
        stride=stride,
        takes=takes,
        thresholds=_SEMANTIC_THRESHOLDS,
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    row.name: row
    for row in (
        _yolov8("YOLOv8", Task.DETECTION),
        _torchvision_detector("FasterRCNN", (*_PYRAMIDS, "mobilenet_v3_large", "mobilenet_v3_large_320")),
        _torchvision_detector("RetinaResNet", _PYRAMIDS),
        _torchvision_detector("MobileNet", (), 320, takes=_NORMALISES),
        # Correct files of the trained YOLOv4 agree by .998 in FP16 and .89 in INT8; with half a cell's shift they reach
        # .806, with classes in another order less than 0.
        Architecture(
            name="YOLOv4",
            task=Task.DETECTION,
            impl="modelexport_converter.architectures.yolov4",
            variants=("full", "tiny"),
            default_input_size=(416, 416),
            stride=32,
            activations=("Mish", "LeakyReLU", "ReLU"),
            takes=frozenset({"anchors"}),
            thresholds=_YOLOV8_THRESHOLDS,
            resources=Resources(memory_mib=4096),
        ),
        Architecture(
            name="YOLOX",
            task=Task.DETECTION,
            impl="modelexport_converter.architectures.yolox",
            variants=("nano", "tiny", "s", "m", "l", "x"),
            default_input_size=(640, 640),
            stride=32,
            # Those that Megvii's networks take as ``act``.
            activations=("SiLU", "ReLU", "LeakyReLU"),
            takes=_NORMALISES | {"colorOrder", "pixelRange"},
            extended=_COREML,
            thresholds=_YOLOX_THRESHOLDS,
        ),
        _yolov8("YOLOv8-SEG", Task.INSTANCE_SEGMENTATION, thresholds=_YOLOV8_SEG_THRESHOLDS),
        _torchvision_detector("MaskRCNN", _PYRAMIDS, task=Task.INSTANCE_SEGMENTATION, extended=_MASKS_EXTENDED),
        _semantic("DeepLabV3", "torchvision_segmenters", (*_RESNETS, *_MOBILENETS), 520, 8),
        _semantic("FCN", "torchvision_segmenters", (*_RESNETS, *_MOBILENETS), 520, 8),
        _semantic("UNet", "unet", (), 512, 16, takes=_NORMALISES | {"alignCorners"}),
        _yolov8("YOLOv8-CLS", Task.CLASSIFICATION, input_size=224),
        _yolov8("YOLOv8-Pose", Task.KEYPOINTS),
        Architecture(
            name="Custom",
            task=Task.UNKNOWN,
            impl="modelexport_converter.architectures.custom",
            variants=(),
            default_input_size=(640, 640),
            stride=1,
            thresholds=_YOLOV8_THRESHOLDS,
        ),
    )
}

TARGETS: tuple[Target, ...] = tuple(Target(fmt, precision) for fmt in Format for precision in Precision)


def name_targets(targets: Iterable[Target]) -> tuple[str, ...]:
    """Name targets as briefly as can be: a format alone stands for all of its precisions."""
    asked = frozenset(targets)
    named = []
    for fmt in Format:
        of_format = [target for target in TARGETS if target.format is fmt]
        found = [str(target) for target in of_format if target in asked]
        named += [str(fmt)] if len(found) == len(of_format) else found
    return tuple(named)


def lookup(architecture: str, target: Target) -> Cell:
    """Return the cell of an architecture and a target.

    Raises:
        KeyError: no such architecture.
    """
    row = ARCHITECTURES[architecture]
    level = SupportLevel.EXTENDED if target in row.extended else SupportLevel.STABLE
    return Cell(row, BACKENDS[target.format], target, level, row.thresholds[target.precision])


def cells() -> tuple[Cell, ...]:
    """Return every cell, architecture by architecture."""
    return tuple(lookup(name, target) for name in ARCHITECTURES for target in TARGETS)

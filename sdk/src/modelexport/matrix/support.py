"""The support matrix: the supported conversions and how they are done.

The CRDs, the planner, the converter, the docs and ``modelexport matrix`` all read this one table. A new architecture is
a row in ``ARCHITECTURES`` and one file in the converter.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import ceil

from modelexport.matrix.measured import Numbers, measurements


class Format(StrEnum):
    """File format of an artifact."""

    LITERT = "LiteRT"
    ONNX = "ONNX"
    COREML = "CoreML"
    PYTORCH = "PyTorch"
    TENSORFLOW = "TensorFlow"
    EXECUTORCH = "ExecuTorch"


class Precision(StrEnum):
    """Numeric precision of an artifact: of its weights, and in ``W8A16`` of its activations, 16-bit integers."""

    FP32 = "FP32"
    FP16 = "FP16"
    INT8 = "INT8"
    W8A16 = "W8A16"


class Task(StrEnum):
    """Computer vision task of a model."""

    DETECTION = "detection"
    INSTANCE_SEGMENTATION = "instance segmentation"
    SEMANTIC_SEGMENTATION = "semantic segmentation"
    CLASSIFICATION = "classification"
    KEYPOINTS = "keypoints"
    ORIENTED_DETECTION = "oriented detection"
    UNKNOWN = "unknown"

    @property
    def metric(self) -> str:
        """The metric of an evaluation on labelled images; empty for an unknown task."""
        return _METRICS.get(self, "")


_METRICS: Mapping[Task, str] = {
    Task.DETECTION: "mAP50-95",
    Task.INSTANCE_SEGMENTATION: "mask-mAP50-95",
    Task.SEMANTIC_SEGMENTATION: "mIoU",
    Task.CLASSIFICATION: "top-1",
    Task.KEYPOINTS: "OKS-mAP50-95",
    Task.ORIENTED_DETECTION: "rotated-mAP50-95",
}


class SupportLevel(StrEnum):
    """Level of a cell: Stable is the default, Extended needs ``spec.supportLevel: Extended``."""

    STABLE = "Stable"
    EXTENDED = "Extended"


class Recipe(StrEnum):
    """How numbers are stored and computed; the INT8 names follow the recipes of ai-edge-quantizer.

    ``wi8`` is weights as 8-bit integers, ``ai8`` activations as 8-bit integers, ``ai16`` as 16-bit integers, ``afp32``
    activations in float32, ``afp16`` in float16.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    DYNAMIC_WI8_AFP32 = "dynamic_wi8_afp32"
    WEIGHT_ONLY_WI8_AFP16 = "weight_only_wi8_afp16"
    WEIGHT_ONLY_WI8_AFP32 = "weight_only_wi8_afp32"
    STATIC_WI8_AI8 = "static_wi8_ai8"
    STATIC_WI8_AI16 = "static_wi8_ai16"

    @property
    def activation_bits(self) -> int:
        """The bits of activations that are stored as integers; 0 if they are floats."""
        return {Recipe.STATIC_WI8_AI8: 8, Recipe.STATIC_WI8_AI16: 16}.get(self, 0)

    @property
    def needs_calibration(self) -> bool:
        """Whether activation ranges must be measured on images."""
        return self.activation_bits > 0

    @property
    def takes_float_layers(self) -> bool:
        """Whether layers may stay in float because rounding their activations costs too much; in 16 bits none does."""
        return self.activation_bits == 8


@dataclass(frozen=True, order=True)
class Target:
    """A format and a precision: one artifact that users can request.

    ``name`` tells targets of an export apart that have the same format and precision, with other options.
    """

    format: Format
    precision: Precision
    name: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.format, self.precision, self.name)))

    @property
    def slug(self) -> str:
        """The target for use in names and paths: ``litert-int8``, and with a name ``litert-int8-camera``."""
        return "-".join(filter(None, (self.format, self.precision, self.name))).lower()

    @property
    def unnamed(self) -> "Target":
        """The target without its name, as the matrix has it."""
        return Target(self.format, self.precision)

    def to_dict(self) -> dict[str, str]:
        """Return plain data, without an empty name, as the requests of earlier versions."""
        named = {"name": self.name} if self.name else {}
        return {"format": str(self.format), "precision": str(self.precision), **named}


@dataclass(frozen=True)
class Backend:
    """The conversion to one format.

    Attributes:
        format: the file format.
        impl: module of the converter.
        suffix: file name suffix.
        data_free: INT8 recipe without calibration images.
        calibrated: INT8 recipe with calibration images.
        cpu_architectures: CPUs for which the converter's packages exist, as Kubernetes names them; a test compares them
            with the locks.
        tools: packages that decide what is in the files, except those that another one pins.
        recommended_hardware: hardware for each precision.
        refused: precisions that the format cannot have, each with the reason.
        bases: recipes whose files are not quantised from an FP32 file, and the recipes of those that they start from;
            with calibration, a recipe whose base is itself starts from a program that is no file for users.
        has_runtime: whether the converter runs the files in their users' runtime; else in an evaluator of ours, whose
            time says nothing about a device.
    """

    format: Format
    impl: str
    suffix: str
    data_free: Recipe
    calibrated: Recipe
    cpu_architectures: tuple[str, ...]
    tools: tuple[str, ...]
    recommended_hardware: Mapping[Precision, str]
    refused: Mapping[Precision, str] = field(default_factory=dict)
    bases: Mapping[Recipe, Recipe] = field(default_factory=dict)
    has_runtime: bool = True

    def recipe(self, precision: Precision, *, calibrated: bool) -> Recipe:
        """Return the recipe for a precision, with or without calibration images."""
        if precision is Precision.INT8:
            return self.calibrated if calibrated else self.data_free
        if precision is Precision.W8A16:
            return Recipe.STATIC_WI8_AI16
        return Recipe(precision.lower())

    def base(self, recipe: Recipe) -> Recipe:
        """Return the recipe of the converted file that is then quantised by ``recipe``; it may be ``recipe`` itself."""
        return self.bases.get(recipe, Recipe.FP32)

    def quantises(self, recipe: Recipe) -> bool:
        """Return whether a converted file is quantised by ``recipe``, even if ``recipe`` has a base of its own."""
        return recipe.needs_calibration or recipe is not self.base(recipe)


@dataclass(frozen=True)
class Threshold:
    """The minimum agreement of the produced file with the original FP32 model for publication."""

    metric: str
    minimum: float


MOST_MEMORY_MIB = 4096
MEMORY_MARGIN, MEMORY_STEP_MIB = 0.25, 256


@dataclass(frozen=True)
class Resources:
    """Resources of one conversion: memory in MiB, scratch disk in MiB (request and limit), CPU in millicores.

    The memory request follows the measured model. The limit is the same for all cells, to leave room for larger
    variants of an architecture (YOLOv8x when YOLOv8n was measured, ResNet-101 when ResNet-50 was).
    """

    memory_mib: int
    memory_limit_mib: int = MOST_MEMORY_MIB
    disk_mib: int = 4096
    cpu_millis: int = 1000

    def for_peak(self, peak_mib: float) -> "Resources":
        """Return the resources for a measured memory peak: a quarter more, in steps of 256 MiB, up to the limit."""
        needed = ceil(peak_mib * (1 + MEMORY_MARGIN) / MEMORY_STEP_MIB) * MEMORY_STEP_MIB
        return replace(self, memory_mib=min(needed, self.memory_limit_mib))


@dataclass(frozen=True)
class Architecture:
    """One row of the matrix.

    Attributes:
        name: name in ``spec.model.architecture``.
        task: task of the model.
        impl: module of the converter.
        variants: networks of this architecture, by size (``n``) or backbone (``resnet50``); empty if there is only one.
        default_input_size: (height, width) in pixels, multiples of ``stride``.
        stride: divisor of the input size.
        has_nms: the files contain non-maximum suppression, so users may set its thresholds.
        has_frozen_norm: batch norm may be frozen; its epsilon is not in the state dict, so users may set it.
        tools: packages that build the network, beside torch.
        activations: activations that users may choose.
        takes: other accepted fields of ``spec.model.parameters`` for facts that are not stored with the weights.
        extended: targets at the level Extended.
        thresholds: minimum agreement for each precision.
        fidelities: minimum fidelity for each precision, on the user's images; empty if no output has a known meaning.
        resources: resources of cells that no run has measured.
    """

    name: str
    task: Task
    impl: str
    variants: tuple[str, ...]
    default_input_size: tuple[int, int]
    stride: int
    has_nms: bool = False
    has_frozen_norm: bool = False
    tools: tuple[str, ...] = ()
    activations: tuple[str, ...] = ()
    takes: frozenset[str] = frozenset()
    extended: frozenset[Target] = frozenset()
    thresholds: Mapping[Precision, Threshold] = field(default_factory=dict)
    fidelities: Mapping[Precision, float] = field(default_factory=dict)
    resources: Resources = Resources(memory_mib=3072)

    def is_extended(self, target: Target) -> bool:
        """Return whether a target, whatever its name, is at the level Extended."""
        return target.unnamed in self.extended

    def refusal(self, asked: Collection[Target]) -> str:
        """Return the message for Extended targets that are requested at the level Stable."""
        stable = name_targets(target for target in TARGETS if not self.is_extended(target)) or ("none",)
        names = name_targets(asked)
        verb = "are" if len(names) > 1 else "is"
        return (
            f"{', '.join(names)} {verb} not in the stable matrix for {self.name} (stable: {', '.join(stable)}); "
            "set spec.supportLevel: Extended"
        )


@dataclass(frozen=True)
class Cell:
    """One architecture in one format and precision."""

    architecture: Architecture
    backend: Backend
    target: Target
    level: SupportLevel
    threshold: Threshold
    fidelity: float | None
    """The minimum fidelity of the file's answers; ``None`` if its outputs have no known meaning."""

    def __str__(self) -> str:
        return f"{self.architecture.name} {self.target}"

    @property
    def numbers(self) -> Numbers:
        """The measurements of ``make matrix``."""
        return measurements().of(str(self))

    @property
    def tools(self) -> tuple[str, ...]:
        """The packages whose versions decide the content of the files: the tools of the format and of the network."""
        return (*self.backend.tools, *self.architecture.tools)

    @property
    def resources(self) -> Resources:
        """Resources of a conversion, from the measured peak of the full-size model.

        W8A16 that was not measured needs no more than INT8, whose ranges take gradients as well.
        """
        full_size = self.numbers.full_size
        if full_size is None and self.target.precision is Precision.W8A16:
            int8 = Target(self.target.format, Precision.INT8)
            full_size = lookup(self.architecture.name, int8).numbers.full_size
        return self.architecture.resources.for_peak(full_size.peak_mib) if full_size else self.architecture.resources

    def recipe(self, *, calibrated: bool) -> Recipe:
        """Return the recipe of the cell, with or without calibration images."""
        return self.backend.recipe(self.target.precision, calibrated=calibrated)


_FLOAT_ACTIVATIONS = "its files compute in FP32, so that no activation would have 16 bits"

BACKENDS: Mapping[Format, Backend] = {
    row.format: row
    for row in (
        Backend(
            format=Format.LITERT,
            impl="modelexport_converter.backends.litert",
            suffix=".tflite",
            data_free=Recipe.DYNAMIC_WI8_AFP32,
            calibrated=Recipe.STATIC_WI8_AI8,
            cpu_architectures=("amd64",),
            tools=("torch", "litert-torch", "jax", "litert-converter", "ai-edge-quantizer", "ai-edge-litert"),
            recommended_hardware={
                Precision.FP32: "CPU, GPU",
                Precision.FP16: "GPU; no faster than FP32 on a CPU, which computes in FP32 from half the bytes",
                Precision.INT8: "CPU, NPU; costs some accuracy",
                Precision.W8A16: "NPU; slower than FP32 on a CPU; costs little accuracy",
            },
        ),
        Backend(
            format=Format.ONNX,
            impl="modelexport_converter.backends.onnx",
            suffix=".onnx",
            data_free=Recipe.DYNAMIC_WI8_AFP32,
            calibrated=Recipe.STATIC_WI8_AI8,
            cpu_architectures=("amd64", "arm64"),
            tools=("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime"),
            recommended_hardware={
                Precision.FP32: "CPU, GPU",
                Precision.FP16: "GPU, NPU; slower than FP32 on most CPUs",
                Precision.INT8: "CPU with 8-bit dot products, NPU; costs some accuracy",
                Precision.W8A16: "NPU; slower than FP32 on a CPU, which computes in FP32; costs little accuracy",
            },
        ),
        Backend(
            format=Format.COREML,
            impl="modelexport_converter.backends.coreml",
            suffix=".mlpackage.zip",
            # The Neural Engine computes in half precision; a float32 program would run on CPU and GPU only.
            data_free=Recipe.WEIGHT_ONLY_WI8_AFP16,
            calibrated=Recipe.WEIGHT_ONLY_WI8_AFP16,
            cpu_architectures=("amd64",),
            tools=("torch", "coremltools"),
            recommended_hardware={
                Precision.FP32: "CPU and GPU of Apple devices, not the Neural Engine",
                Precision.FP16: "Neural Engine and GPU of Apple devices",
                Precision.INT8: "as FP16, in half the bytes; costs some accuracy",
            },
            refused={Precision.W8A16: "Apple's devices compute in 16-bit floats, which FP16 and INT8 use already"},
            bases=dict.fromkeys((Recipe.FP16, Recipe.WEIGHT_ONLY_WI8_AFP16), Recipe.FP16),
            has_runtime=False,
        ),
        Backend(
            format=Format.PYTORCH,
            impl="modelexport_converter.backends.pytorch",
            suffix=".pt2",
            data_free=Recipe.WEIGHT_ONLY_WI8_AFP32,
            calibrated=Recipe.WEIGHT_ONLY_WI8_AFP32,
            cpu_architectures=("amd64", "arm64"),
            tools=("torch",),
            recommended_hardware={
                Precision.FP32: "whatever torch runs on; AOTInductor and other converters read it",
                Precision.FP16: "as FP32, in half the bytes; computes in FP32",
                Precision.INT8: "as FP32, in a quarter of the bytes; computes in FP32, costs some accuracy",
            },
            refused={Precision.W8A16: _FLOAT_ACTIVATIONS},
        ),
        Backend(
            format=Format.TENSORFLOW,
            impl="modelexport_converter.backends.tensorflow",
            suffix=".savedmodel.zip",
            data_free=Recipe.WEIGHT_ONLY_WI8_AFP32,
            calibrated=Recipe.WEIGHT_ONLY_WI8_AFP32,
            cpu_architectures=("amd64", "arm64"),
            tools=("torch", "tensorflow"),
            recommended_hardware={
                Precision.FP32: "whatever TensorFlow runs on: CPU, GPU, TensorFlow Serving",
                Precision.FP16: "as FP32, in half the bytes; computes in FP32",
                Precision.INT8: "as FP32, in a quarter of the bytes; computes in FP32, costs some accuracy",
            },
            refused={Precision.W8A16: _FLOAT_ACTIVATIONS},
            bases={recipe: recipe for recipe in (Recipe.FP16, Recipe.WEIGHT_ONLY_WI8_AFP32)},
        ),
        Backend(
            format=Format.EXECUTORCH,
            impl="modelexport_converter.backends.executorch",
            suffix=".pte",
            # XNNPACK cannot measure ranges of ordinary networks while they run (docs/adr/0019-executorch.md).
            data_free=Recipe.STATIC_WI8_AI8,
            calibrated=Recipe.STATIC_WI8_AI8,
            cpu_architectures=("amd64", "arm64"),
            tools=("torch", "executorch"),
            recommended_hardware={
                Precision.FP32: "CPU of Android, iOS and embedded devices (XNNPACK)",
                Precision.FP16: "CPU with arithmetic in half precision (ARMv8.2); slower than FP32 on others",
                Precision.INT8: "CPU; costs some accuracy",
            },
            refused={Precision.W8A16: "XNNPACK has no 16-bit activations"},
            bases={recipe: recipe for recipe in (Recipe.FP16, Recipe.STATIC_WI8_AI8)},
        ),
    )
}

TARGETS: tuple[Target, ...] = tuple(
    Target(fmt, precision) for fmt in Format for precision in Precision if precision not in BACKENDS[fmt].refused
)
_COREML = frozenset(target for target in TARGETS if target.format is Format.COREML)
_EXECUTORCH = frozenset(target for target in TARGETS if target.format is Format.EXECUTORCH)
_W8A16 = frozenset(target for target in TARGETS if target.precision is Precision.W8A16)
_EXTENDED = _EXECUTORCH | _W8A16
"""Targets at the level Extended for every architecture."""

# Measured on the trained models of testdata/models, at the size of their training. Correct files agree by at least
# .99999 in FP32 (pixels scaled by .9 instead of 1: .97 to .999), by .9985 in FP16 (bfloat16: .986 to .999) and by
# .979 in INT8, segmentation by .91. Files known to be wrong reach less: half a cell's shift of the boxes .84, one
# convolution with a tenth of noise .83, class order and missing division by 255 below 0. A model that is run at a
# size it was not trained for loses more in INT8 (.75 to .88 at four times the size), and rejecting its file is
# correct. In W8A16, which loses what 8-bit weights lose, correct files reach .987 (YOLOv4), and .976 calibrated on 16
# images (keypoints in LiteRT). Files known to be wrong: ranges too narrow by a third .75, red and blue exchanged .937.
# One SiLU of many left out (.988) and one range too narrow by half (.990) are not detected.
_YOLOV8_THRESHOLDS: Mapping[Precision, Threshold] = {
    Precision.FP32: Threshold("agreement", 0.9999),
    Precision.FP16: Threshold("agreement", 0.99),
    Precision.INT8: Threshold("agreement", 0.85),
    Precision.W8A16: Threshold("agreement", 0.95),
}
# Prototypes lose most, because no nonlinearity after them hides errors; the masks lose .004 mAP50-95 at .91.
# In W8A16 correct files reach .963, and .94 calibrated on 16 images; one SiLU left out reaches .88, red and blue
# exchanged .84, ranges too narrow by a third .27.
_YOLOV8_SEG_THRESHOLDS = {
    **_YOLOV8_THRESHOLDS,
    Precision.INT8: Threshold("agreement", 0.8),
    Precision.W8A16: Threshold("agreement", 0.9),
}


# Measured on 64 images, with about 170 detections: correct files of YOLOv8, YOLOX, YOLOv4 and YOLOv8-SEG reach 1 in
# every recipe, and YOLOX in INT8 reaches .988 on images that are hard for it. SSDlite without half of the boxes of one
# class agrees by .935 and reaches .862. One answer of the fewest that are judged (20) is .05: alone it refuses no file.
# What W8A16 loses, its weights lose. Its files reach 1 for boxes, masks, keypoints and classes, and .997 for pixels
# (DeepLabV3, U-Net), like those of FP16.
_FIDELITIES: Mapping[Precision, float] = {
    Precision.FP32: 0.95,
    Precision.FP16: 0.95,
    Precision.INT8: 0.9,
    Precision.W8A16: 0.95,
}

_NORMALISES = frozenset({"imageMean", "imageStd"})
_ANCHORS = frozenset({"anchorSizes", "aspectRatios"})
_TORCHVISION = ("torchvision",)
# Activations of the published ultralytics networks, and those that users set in the .yaml files.
_YOLOV8_ACTIVATIONS = ("SiLU", "ReLU", "LeakyReLU", "Hardswish", "Mish")


def _yolov8(
    name: str,
    task: Task,
    input_size: int = 640,
    thresholds: Mapping[Precision, Threshold] = _YOLOV8_THRESHOLDS,
    extended: frozenset[Target] = _EXTENDED,
) -> Architecture:
    return Architecture(
        name=name,
        task=task,
        impl="modelexport_converter.architectures.yolov8.loader",
        variants=("n", "s", "m", "l", "x"),
        default_input_size=(input_size, input_size),
        stride=32,
        activations=_YOLOV8_ACTIVATIONS,
        extended=extended,
        thresholds=thresholds,
        fidelities=_FIDELITIES,
    )


# Measured on the trained SSDlite: correct files agree by .9999998 in FP32, by .9996 in FP16 and by .985 in INT8. Files
# known to be wrong reach less: pixels scaled by 1.25 .981, boxes shifted by two pixels of 160 .82, the best detection
# lost .76, two classes exchanged .37. In W8A16 correct files of SSDlite reach .997; red and blue exchanged reach .951,
# ranges too narrow by a third .944, one activation left out .91.
_DETECTOR_THRESHOLDS: Mapping[Precision, Threshold] = {
    Precision.FP32: Threshold("agreement", 0.9999),
    Precision.FP16: Threshold("agreement", 0.995),
    Precision.INT8: Threshold("agreement", 0.9),
    Precision.W8A16: Threshold("agreement", 0.955),
}


def _torchvision_detector(
    name: str,
    variants: tuple[str, ...],
    input_size: int = 640,
    *,
    task: Task = Task.DETECTION,
    extended: frozenset[Target] = _COREML | _EXTENDED,
    takes: frozenset[str] = _NORMALISES | _ANCHORS,
) -> Architecture:
    return Architecture(
        name=name,
        task=task,
        impl="modelexport_converter.architectures.torchvision.detectors",
        variants=variants,
        default_input_size=(input_size, input_size),
        stride=32,
        has_nms=True,
        has_frozen_norm=True,
        tools=_TORCHVISION,
        takes=takes | {"detectionsPerImage"},
        extended=extended,
        thresholds=_DETECTOR_THRESHOLDS,
        fidelities=_FIDELITIES,
    )


# Correct files of the trained YOLOX agree by .998 in FP16 and by .94 in INT8; with half a cell's shift they reach .839,
# with red and blue exchanged .829, with a fifth of noise in one convolution .816, with classes in another order or
# pixels not divided by 255 less than 0. Pixels scaled by .9 (.949) are detected in FP16 only. In W8A16 correct files
# reach .984; pixels scaled by .9 reach .942, one SiLU left out .937, ranges too narrow by a third .45.
_YOLOX_THRESHOLDS = {**_YOLOV8_THRESHOLDS, Precision.INT8: Threshold("agreement", 0.87)}

_RESNETS, _MOBILENETS = ("resnet50", "resnet101"), ("mobilenet_v3_large", "mobilenet_v3_small")
_PYRAMIDS = ("resnet18", "resnet34", *_RESNETS, "resnet152")
_MASKS_EXTENDED = _COREML | _EXTENDED | {Target(Format.LITERT, Precision.INT8), Target(Format.ONNX, Precision.FP16)}
# Correct files of the trained U-Net agree by at least .999999 in FP32, .9998 in FP16 and .992 in INT8; the minima are
# those of YOLOv8, below which a file is known to be wrong there. In W8A16 correct files of U-Net, FCN and DeepLabV3
# reach .995; ranges too narrow by a third reach .954, red and blue exchanged .93, one ReLU left out .85 (FCN).
_SEMANTIC_THRESHOLDS: Mapping[Precision, Threshold] = {
    Precision.FP32: Threshold("agreement", 0.9999),
    Precision.FP16: Threshold("agreement", 0.99),
    Precision.INT8: Threshold("agreement", 0.85),
    Precision.W8A16: Threshold("agreement", 0.97),
}


def _semantic(
    name: str,
    impl: str,
    variants: tuple[str, ...],
    input_size: int,
    stride: int,
    *,
    tools: tuple[str, ...] = _TORCHVISION,
    takes: frozenset[str] = _NORMALISES,
) -> Architecture:
    return Architecture(
        name=name,
        task=Task.SEMANTIC_SEGMENTATION,
        impl=f"modelexport_converter.architectures.{impl}",
        variants=variants,
        default_input_size=(input_size, input_size),
        stride=stride,
        tools=tools,
        takes=takes,
        extended=_EXTENDED,
        thresholds=_SEMANTIC_THRESHOLDS,
        fidelities=_FIDELITIES,
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    row.name: row
    for row in (
        _yolov8("YOLOv8", Task.DETECTION),
        _yolov8("YOLO11", Task.DETECTION, extended=frozenset(TARGETS)),
        # Correct files of the trained YOLO26 agree by .999999 in FP32, .998 in FP16, .927 in INT8 and .976 in W8A16,
        # and keep all answers; the minima are those of YOLOv8.
        _yolov8("YOLO26", Task.DETECTION, extended=frozenset(TARGETS)),
        _torchvision_detector("FasterRCNN", (*_PYRAMIDS, "mobilenet_v3_large", "mobilenet_v3_large_320")),
        _torchvision_detector("RetinaResNet", _PYRAMIDS),
        _torchvision_detector("MobileNet", (), 320, takes=_NORMALISES),
        # Correct files of the trained YOLOv4 agree by .998 in FP16 and .89 in INT8; with half a cell's shift they reach
        # .806, with classes in another order less than 0. In W8A16 correct files reach .989; two output channels of one
        # convolution exchanged reach .950, ranges too narrow by a third .818, one activation left out .716.
        Architecture(
            name="YOLOv4",
            task=Task.DETECTION,
            impl="modelexport_converter.architectures.yolov4.loader",
            variants=("full", "tiny"),
            default_input_size=(416, 416),
            stride=32,
            activations=("Mish", "LeakyReLU", "ReLU"),
            takes=frozenset({"anchors"}),
            extended=_EXTENDED,
            thresholds=_YOLOV8_THRESHOLDS,
            fidelities=_FIDELITIES,
            resources=Resources(memory_mib=4096),
        ),
        Architecture(
            name="YOLOX",
            task=Task.DETECTION,
            impl="modelexport_converter.architectures.yolox.loader",
            variants=("nano", "tiny", "s", "m", "l", "x"),
            default_input_size=(640, 640),
            stride=32,
            # The values of ``act`` in Megvii's networks.
            activations=("SiLU", "ReLU", "LeakyReLU"),
            takes=_NORMALISES | {"colorOrder", "pixelRange"},
            extended=_COREML | _EXTENDED,
            thresholds=_YOLOX_THRESHOLDS,
            fidelities=_FIDELITIES,
        ),
        _yolov8("YOLOv8-SEG", Task.INSTANCE_SEGMENTATION, thresholds=_YOLOV8_SEG_THRESHOLDS),
        # Correct files of the trained YOLO11-SEG agree by .99999 in FP32, .997 in FP16, .910 in INT8 and .954 in W8A16,
        # and keep all answers; red and blue exchanged give .856. The minima are those of YOLOv8-SEG.
        _yolov8(
            "YOLO11-SEG",
            Task.INSTANCE_SEGMENTATION,
            thresholds=_YOLOV8_SEG_THRESHOLDS,
            extended=frozenset(TARGETS),
        ),
        # Those of the trained YOLO26-SEG agree by .999999 in FP32, .9986 in FP16, .936 in INT8 and .980 in W8A16, and
        # lose at most .0034 of the masks' precision; red and blue exchanged give .837.
        _yolov8(
            "YOLO26-SEG",
            Task.INSTANCE_SEGMENTATION,
            thresholds=_YOLOV8_SEG_THRESHOLDS,
            extended=frozenset(TARGETS),
        ),
        _torchvision_detector("MaskRCNN", _PYRAMIDS, task=Task.INSTANCE_SEGMENTATION, extended=_MASKS_EXTENDED),
        _semantic("DeepLabV3", "torchvision.segmenters", (*_RESNETS, *_MOBILENETS), 520, 8),
        _semantic("FCN", "torchvision.segmenters", (*_RESNETS, *_MOBILENETS), 520, 8),
        _semantic("UNet", "unet", (), 512, 16, tools=(), takes=_NORMALISES | {"alignCorners"}),
        _yolov8("YOLOv8-CLS", Task.CLASSIFICATION, input_size=224),
        # Correct files of the trained YOLO11-CLS agree by .9999998 in FP32, .9997 in FP16 and .982 in INT8; the minima
        # are those of YOLOv8-CLS.
        _yolov8("YOLO11-CLS", Task.CLASSIFICATION, input_size=224, extended=frozenset(TARGETS)),
        # Those of the trained YOLO26-CLS agree by .9999999 in FP32, .9997 in FP16, .987 in INT8 and .997 in W8A16.
        _yolov8("YOLO26-CLS", Task.CLASSIFICATION, input_size=224, extended=frozenset(TARGETS)),
        _yolov8("YOLOv8-Pose", Task.KEYPOINTS),
        # Correct files of the trained YOLO11-Pose agree by .9999995 in FP32, .9992 in FP16, .970 in INT8 and .9885 in
        # W8A16; red and blue exchanged give .936. The minima are those of YOLOv8-Pose.
        _yolov8("YOLO11-Pose", Task.KEYPOINTS, extended=frozenset(TARGETS)),
        # Those of the trained YOLO26-Pose agree by .999999 in FP32, .9991 in FP16, .929 in INT8 and .9897 in W8A16, and
        # keep all answers; noise of a fifth in one convolution gives .900, red and blue exchanged .827.
        _yolov8("YOLO26-Pose", Task.KEYPOINTS, extended=frozenset(TARGETS)),
        # Correct files of the trained YOLOv8-OBB agree by .9999992 in FP32, .9986 in FP16, .954 in INT8 and .985 in
        # W8A16, and keep all answers; pixels times 1.25 give .918, noise of a fifth in one convolution .881, red and
        # blue exchanged .758. The minima are those of YOLOv8.
        _yolov8("YOLOv8-OBB", Task.ORIENTED_DETECTION, extended=frozenset(TARGETS)),
        # Those of the trained YOLO11-OBB agree by .999999 in FP32, .9991 in FP16 (ExecuTorch: .9966), .944 in INT8 and
        # .976 in W8A16, and keep all answers; noise of a fifth in one convolution gives .870, red and blue exchanged
        # .862.
        _yolov8("YOLO11-OBB", Task.ORIENTED_DETECTION, extended=frozenset(TARGETS)),
        # Those of the trained YOLO26-OBB agree by .999999 in FP32, .9979 in FP16 (ExecuTorch: .9936), .903 in INT8 and
        # .963 in W8A16, and lose at most .0095 of .6657; noise of a fifth in one convolution gives .837, red and blue
        # exchanged .781.
        _yolov8("YOLO26-OBB", Task.ORIENTED_DETECTION, extended=frozenset(TARGETS)),
        Architecture(
            name="Custom",
            task=Task.UNKNOWN,
            impl="modelexport_converter.architectures.custom",
            variants=(),
            default_input_size=(640, 640),
            stride=1,
            extended=_EXTENDED,
            thresholds=_YOLOV8_THRESHOLDS,
        ),
    )
}


def requires_images(target: Target) -> bool:
    """Return whether a target cannot be made without calibration images."""
    return BACKENDS[target.format].recipe(target.precision, calibrated=False).needs_calibration


def name_targets(targets: Iterable[Target]) -> tuple[str, ...]:
    """Return the names of targets; a format alone stands for all of its precisions."""
    asked = frozenset(target.unnamed for target in targets)
    named = []
    for fmt in Format:
        of_format = [target for target in TARGETS if target.format is fmt]
        found = [str(target) for target in of_format if target in asked]
        named += [str(fmt)] if len(found) == len(of_format) else found
    return tuple(named)


def lookup(architecture: str, target: Target) -> Cell:
    """Return the cell of an architecture and a target.

    Raises:
        KeyError: the architecture is unknown.
    """
    row = ARCHITECTURES[architecture]
    level = SupportLevel.EXTENDED if row.is_extended(target) else SupportLevel.STABLE
    return Cell(
        row,
        BACKENDS[target.format],
        target.unnamed,
        level,
        row.thresholds[target.precision],
        row.fidelities.get(target.precision),
    )


def cells() -> tuple[Cell, ...]:
    """Return every cell, architecture by architecture."""
    return tuple(lookup(name, target) for name in ARCHITECTURES for target in TARGETS)

"""The OpenAPI schemas of ``spec.quantization`` and of what a status says of it."""

from modelexport.api.quantization import (
    DEFAULT_FLOAT_LAYERS,
    DEFAULT_SIZE_RATIO,
    FLOAT_LAYER_TARGETS,
    MOST_FLOAT_LAYERS,
    NO_SIZE_RATIO,
    NO_TARGET,
    SIZE_RATIO_PATTERN,
    WITHOUT_CALIBRATION,
    WITHOUT_LAYERS,
    Effort,
)
from modelexport.api.rungs import MOST_RUNGS, MOST_SECONDS, STOP_LENGTH
from modelexport.crds.schema import Schema, cel_list, integer, plain_list, record, rule, text, words


def quantization() -> Schema:
    """Return the schema of ``spec.quantization``."""
    layers = rule(
        "self.effort != 'MixedPrecision' || self.maxFloatLayers > 0",
        f"0 {WITHOUT_LAYERS}",
        fieldPath=".maxFloatLayers",
    )
    decimal = rule(f"self.matches('{SIZE_RATIO_PATTERN}')", NO_SIZE_RATIO)
    return record(
        "How far a conversion goes for an INT8 file with 8-bit activations that loses more accuracy than "
        "evaluation.maxDrop or, without an evaluation, gives other answers than the original. An absent object means "
        "its defaults.",
        {
            "effort": words(
                "Ranges chooses 8-bit ranges only. MixedPrecision also keeps the layers in float that cost most. Auto "
                "is Ranges, and MixedPrecision for a file that loses too much.",
                list(Effort),
                default=str(Effort.AUTO),
            ),
            "maxFloatLayers": integer(
                "Maximum number of layers in float; 0 for hardware that computes in 8 bits only. As few as needed are "
                "kept: 4, then twice as many.",
                0,
                MOST_FLOAT_LAYERS,
                default=DEFAULT_FLOAT_LAYERS,
            ),
            "maxSizeRatio": text(
                "Maximum size of a file with layers in float, relative to the FP32 file. A decimal above 0 and up to 1 "
                f'as text, for example "{DEFAULT_SIZE_RATIO}".',
                16,
                decimal,
                default=DEFAULT_SIZE_RATIO,
            ),
        },
        layers,
    )


def rules() -> list[Schema]:
    """Return the rules that layers in float need images, and a target that can have them."""
    capable = cel_list([str(target) for target in FLOAT_LAYER_TARGETS])
    return [
        rule(
            f"!has(self.quantization) || self.targets.exists(t, (t.format + '/' + t.precision) in {capable})",
            f"quantization {NO_TARGET}",
            fieldPath=".quantization",
        ),
        rule("!has(self.quantization) || has(self.calibration)", WITHOUT_CALIBRATION, fieldPath=".quantization"),
    ]


def result() -> Schema:
    """Return the schema of what a status says of it."""
    return record(
        "How an INT8 file with 8-bit activations was made, and what was tried. Decimals are text.",
        {
            "effort": text("Rung that made the file: Ranges or MixedPrecision.", 63),
            **_size(),
            "rungs": plain_list(
                "The files that were tried, in their order; the last one is the file, unless none kept what is "
                "required: then it is the best.",
                record(
                    "A file that was tried.",
                    {
                        "rung": text("Ranges or MixedPrecision.", 63),
                        **_size(),
                        "seconds": integer("Seconds that it took.", 0, MOST_SECONDS),
                        "agreement": text("Its agreement; missing if the file was too large to be measured.", 63),
                        "fidelity": text("Its fidelity, if measured.", 63),
                        "drop": text("Its loss of accuracy, if evaluated.", 63),
                    },
                    required=("rung", "floatLayers", "sizeRatio", "seconds"),
                ),
                MOST_RUNGS,
            ),
            "stopped": text("Why no further rung was tried, if none kept what is required.", STOP_LENGTH),
        },
        required=("effort", "floatLayers", "sizeRatio", "rungs"),
    )


def _size() -> Schema:
    return {
        "floatLayers": integer("Number of layers in float.", 0, MOST_FLOAT_LAYERS),
        "sizeRatio": text("Size relative to the FP32 file.", 63),
    }

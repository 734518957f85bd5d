"""The nine targets that the benchmarks convert. They stay the same when the matrix grows, so that results compare."""

from modelexport.matrix.support import TARGETS, Format, requires_images

_FORMATS = (Format.LITERT, Format.ONNX, Format.COREML)
NINE = tuple(target for target in TARGETS if target.format in _FORMATS and not requires_images(target))

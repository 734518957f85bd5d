"""The nine targets of the measurements that are compared over time, whatever the matrix has gained since."""

from modelexport.matrix.support import TARGETS, Format, requires_images

_FORMATS = (Format.LITERT, Format.ONNX, Format.COREML)
NINE = tuple(target for target in TARGETS if target.format in _FORMATS and not requires_images(target))

"""The only module that imports coremltools, which has no type hints and logs warnings on Linux."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from modelexport_converter.runtime.absent_modules import absent

# All are harmless here. Prediction needs macOS, so its native library is not in the Linux wheel. coremltools warns of a
# torch or scikit-learn newer than it was tested with: every conversion is verified, and scikit-learn is not used.
_EXPECTED = {
    "coremltools": (
        "No module named 'coremltools.libcoremlpython'",
        "has not been tested with coremltools",
        "scikit-learn version",
    ),
}


_UNUSED = ("tensorflow", "sklearn", "transformers", "executorch", "torchao", "torchaudio", "torchvision")
"""Libraries that coremltools imports if they are installed, to convert their models. TensorFlow alone, which we have
for another format, takes half a GiB and seconds."""
_TRAINING = "coremltools.optimize.torch"
"""The part of coremltools that compresses modules of torch in training; it imports torch.distributed."""


@contextmanager
def _without_expected_warnings() -> Iterator[None]:
    filters = [(logging.getLogger(name), _WithoutPhrases(phrases)) for name, phrases in _EXPECTED.items()]
    for logger, dropper in filters:
        logger.addFilter(dropper)
    try:
        # Importing coremltools compiles old escape sequences and touches deprecated names of torch.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            yield
    finally:
        for logger, dropper in filters:
            logger.removeFilter(dropper)


class _WithoutPhrases(logging.Filter):
    """Drops the records whose message contains one of some phrases."""

    def __init__(self, phrases: tuple[str, ...]) -> None:
        super().__init__()
        self._phrases = phrases

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is kept."""
        return not any(phrase in record.getMessage() for phrase in self._phrases)


sys.modules.setdefault(_TRAINING, ModuleType(_TRAINING))
with _without_expected_warnings(), absent(_UNUSED):
    import coremltools
    from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

__all__ = ["DecodeError", "FeatureTypes_pb2", "MIL_pb2", "Model_pb2", "coremltools"]

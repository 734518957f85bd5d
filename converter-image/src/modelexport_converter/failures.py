"""The exception that ends a conversion on purpose."""

from modelexport.api.reasons import Reason
from modelexport.api.result import Accuracy, Verification
from modelexport.api.rungs import QuantizationResult
from modelexport.text import clean


class Failure(Exception):  # noqa: N818 - the word of the design, used everywhere
    """Ends a conversion with a reason that the user sees.

    ``str()`` is the message: the found value, the expected value and the way out. It may contain names of layers, files
    and images that an untrusted author chose, so it is cleaned.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        verification: Verification | None = None,
        accuracy: Accuracy | None = None,
        quantization: QuantizationResult | None = None,
    ) -> None:
        super().__init__(clean(message))
        self.reason = reason
        self.verification = verification
        self.accuracy = accuracy
        self.quantization = quantization

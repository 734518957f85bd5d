"""The one exception that ends a conversion on purpose."""

from modelexport.reasons import Reason
from modelexport.result import Verification


class Failure(Exception):  # noqa: N818 - the word of the design, used everywhere
    """A conversion cannot go on, for a reason that the user is told.

    ``str()`` is the message: it names what was found, what was expected and the way out.
    """

    def __init__(self, reason: Reason, message: str, verification: Verification | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.verification = verification

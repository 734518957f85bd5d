"""The one exception that ends a conversion on purpose."""

from modelexport.reasons import Reason
from modelexport.result import Verification
from modelexport.text import clean


class Failure(Exception):  # noqa: N818 - the word of the design, used everywhere
    """A conversion cannot go on, for a reason that the user is told.

    ``str()`` is the message: it names what was found, what was expected and the way out. Names of layers, files and
    pictures stand in it, and come from whoever made them; so it is cleaned.
    """

    def __init__(self, reason: Reason, message: str, verification: Verification | None = None) -> None:
        super().__init__(clean(message))
        self.reason = reason
        self.verification = verification

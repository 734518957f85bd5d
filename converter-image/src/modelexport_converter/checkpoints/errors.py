"""Exceptions of the checkpoint readers; ``read_checkpoint`` turns them into failures of the conversion."""


class Unreadable(Exception):  # noqa: N818 - what a checkpoint is, not what went wrong here
    """The content is damaged, too large or of another kind; ``str()`` is a clause that starts with "it" or "its"."""


class Unsafe(Exception):  # noqa: N818
    """Loading the content would run or open something harmful; ``str()`` names it."""

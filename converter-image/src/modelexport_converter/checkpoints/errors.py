"""How the readers of checkpoints say that they cannot go on; the door turns it into a failure of the conversion."""


class Unreadable(Exception):  # noqa: N818 - what a checkpoint is, not what went wrong here
    """The content is damaged, too large or of another kind; ``str()`` says what of it, as a part of a sentence."""


class Unsafe(Exception):  # noqa: N818
    """The content asks for what does harm where it is loaded without care; ``str()`` says for what."""

"""The errors of the evaluator."""


class ProgramError(ValueError):
    """The file is not a valid ML program, or an op's result differs from its declared type."""


class UnsupportedOp(ProgramError):  # noqa: N818 - named for what is wrong, like the converter's other failures
    """The program uses an op, or a parameter of an op, that the evaluator does not support."""

    def __init__(self, op: str, model: str, detail: str = "the evaluator does not know this op") -> None:
        super().__init__(f"cannot evaluate op {op!r} of {model}: {detail}")
        self.op = op
        self.model = model


class InputMismatch(ProgramError):  # noqa: N818
    """The arrays passed to a run do not fit the program's inputs in name, shape or kind of number."""

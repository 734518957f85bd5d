"""The explanation of a state: a reason and a message for users. Pure."""

from dataclasses import dataclass

from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult


@dataclass(frozen=True)
class Diagnosis:
    """A reason from the closed list, and a message that users can act on."""

    reason: Reason
    message: str
    result: ConversionResult | None = None


def advise(diagnosis: Diagnosis) -> Diagnosis:
    """Append the advice of the reason to the cluster's message; the converter's own results already contain theirs."""
    if diagnosis.result is not None:
        return diagnosis
    return Diagnosis(diagnosis.reason, f"{diagnosis.message.rstrip(' .:')}. {diagnosis.reason.policy.advice}")

"""The closed list of reasons: one word for a condition, an event, a metric label and the converter's exit alike.

Each reason says whose fault it is and whether trying again can help; the converter's exit code follows from that.
"""

from dataclasses import dataclass
from enum import StrEnum

from modelexport.names import ExitCode


class Fault(StrEnum):
    """Who has to act: nobody, the author of the ModelExport, or whoever runs the platform."""

    NONE = "None"
    USER = "User"
    SYSTEM = "System"


@dataclass(frozen=True)
class Policy:
    """What a reason means: whose fault, and whether the same Job may succeed when it is tried again."""

    fault: Fault
    retriable: bool = False


class Reason(StrEnum):
    """Why a target or a ModelExport is in its state."""

    # Progress.
    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    PROGRESSING = "Progressing"
    TARGETS_FAILED = "TargetsFailed"
    # The ModelExport itself.
    INVALID_SPEC = "InvalidSpec"
    UNSUPPORTED_TARGET = "UnsupportedTarget"
    CLASS_NOT_FOUND = "ClassNotFound"
    CLASS_INVALID = "ClassInvalid"
    # The checkpoint.
    CHECKPOINT_NOT_FOUND = "CheckpointNotFound"
    CHECKPOINT_UNREADABLE = "CheckpointUnreadable"
    CHECKPOINT_UNSAFE = "CheckpointUnsafe"
    CHECKPOINT_MISMATCH = "CheckpointMismatch"
    DIGEST_MISMATCH = "DigestMismatch"
    WEIGHTS_NOT_FINITE = "WeightsNotFinite"
    # The calibration data.
    CALIBRATION_NOT_FOUND = "CalibrationNotFound"
    CALIBRATION_INVALID = "CalibrationInvalid"
    CALIBRATION_TOO_LARGE = "CalibrationTooLarge"
    # Conversion and verification.
    CONVERSION_FAILED = "ConversionFailed"
    INSPECTION_FAILED = "InspectionFailed"
    VERIFICATION_FAILED = "VerificationFailed"
    # The store.
    BUCKET_NOT_FOUND = "BucketNotFound"
    STORAGE_DENIED = "StorageDenied"
    STORAGE_FULL = "StorageFull"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    # The cluster.
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    EVICTED = "Evicted"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    JOB_REFUSED = "JobRefused"
    OOM_KILLED = "OOMKilled"
    POD_START_FAILED = "PodStartFailed"
    UNSCHEDULABLE = "Unschedulable"
    # Anything that has no word of its own: a defect of ours.
    INTERNAL_ERROR = "InternalError"

    @property
    def policy(self) -> Policy:
        """Whose fault this is, and whether a retry can help."""
        return _POLICIES[self]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code with which the converter reports this reason."""
        if self.policy.fault is Fault.NONE:
            return ExitCode.SUCCEEDED
        if self.policy.retriable:
            return ExitCode.RETRIABLE
        return ExitCode.USER_FAULT if self.policy.fault is Fault.USER else ExitCode.SYSTEM_FAULT


_POLICIES = {
    **dict.fromkeys(
        (
            Reason.PENDING,
            Reason.QUEUED,
            Reason.RUNNING,
            Reason.RETRYING,
            Reason.SUSPENDED,
            Reason.SUCCEEDED,
            Reason.PROGRESSING,
        ),
        Policy(Fault.NONE),
    ),
    **dict.fromkeys(
        (
            Reason.TARGETS_FAILED,
            Reason.INVALID_SPEC,
            Reason.UNSUPPORTED_TARGET,
            Reason.CHECKPOINT_NOT_FOUND,
            Reason.CHECKPOINT_UNREADABLE,
            Reason.CHECKPOINT_UNSAFE,
            Reason.CHECKPOINT_MISMATCH,
            Reason.DIGEST_MISMATCH,
            Reason.WEIGHTS_NOT_FINITE,
            Reason.CALIBRATION_NOT_FOUND,
            Reason.CALIBRATION_INVALID,
            Reason.CALIBRATION_TOO_LARGE,
            Reason.VERIFICATION_FAILED,
        ),
        Policy(Fault.USER),
    ),
    **dict.fromkeys(
        (
            Reason.CLASS_INVALID,
            Reason.CONVERSION_FAILED,
            Reason.INSPECTION_FAILED,
            Reason.BUCKET_NOT_FOUND,
            Reason.STORAGE_DENIED,
            Reason.STORAGE_FULL,
            Reason.DEADLINE_EXCEEDED,
            Reason.JOB_REFUSED,
        ),
        Policy(Fault.SYSTEM),
    ),
    **dict.fromkeys(
        (
            Reason.CLASS_NOT_FOUND,
            Reason.STORAGE_UNAVAILABLE,
            Reason.EVICTED,
            Reason.IMAGE_PULL_FAILED,
            Reason.OOM_KILLED,
            Reason.POD_START_FAILED,
            Reason.UNSCHEDULABLE,
            Reason.INTERNAL_ERROR,
        ),
        Policy(Fault.SYSTEM, retriable=True),
    ),
}

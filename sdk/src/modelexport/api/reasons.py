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
    """What a reason means: whose fault, what to do, and whether the same Job may succeed when it is tried again."""

    fault: Fault
    advice: str
    retriable: bool = False


class Reason(StrEnum):
    """Why a target or a ModelExport is in its state."""

    # Progress.
    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    LIMIT_REACHED = "LimitReached"
    SUCCEEDED = "Succeeded"
    PROGRESSING = "Progressing"
    TARGETS_FAILED = "TargetsFailed"
    # The ModelExport itself.
    INVALID_SPEC = "InvalidSpec"
    UNSUPPORTED_TARGET = "UnsupportedTarget"
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    CLASS_NOT_FOUND = "ClassNotFound"
    CLASS_INVALID = "ClassInvalid"
    CLASS_NOT_ALLOWED = "ClassNotAllowed"
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
    OUTPUT_REFUSED = "OutputRefused"
    # The store.
    BUCKET_NOT_FOUND = "BucketNotFound"
    STORAGE_DENIED = "StorageDenied"
    STORAGE_FULL = "StorageFull"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    # The files of an export that was deleted.
    FILES_REMOVED = "FilesRemoved"
    FILES_REMAIN = "FilesRemain"
    # The cluster.
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    EVICTED = "Evicted"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    JOB_REFUSED = "JobRefused"
    NO_SUITABLE_NODE = "NoSuitableNode"
    OOM_KILLED = "OOMKilled"
    POD_REFUSED = "PodRefused"
    POD_START_FAILED = "PodStartFailed"
    UNSCHEDULABLE = "Unschedulable"
    # Anything that has no word of its own: a defect of ours.
    INTERNAL_ERROR = "InternalError"

    @property
    def policy(self) -> Policy:
        """Whose fault this is, what to do, and whether a retry can help."""
        return _POLICIES[self]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code with which the converter reports this reason."""
        if self.policy.fault is Fault.NONE:
            return ExitCode.SUCCEEDED
        if self.policy.retriable:
            return ExitCode.RETRIABLE
        return ExitCode.USER_FAULT if self.policy.fault is Fault.USER else ExitCode.SYSTEM_FAULT


def _user(advice: str) -> Policy:
    return Policy(Fault.USER, advice)


def _system(advice: str, *, retriable: bool = False) -> Policy:
    return Policy(Fault.SYSTEM, advice, retriable)


_POLICIES = {
    Reason.PENDING: Policy(Fault.NONE, "Nothing has been started yet."),
    Reason.QUEUED: Policy(Fault.NONE, "The Job exists and waits for a node."),
    Reason.RUNNING: Policy(Fault.NONE, "The converter is at work."),
    Reason.RETRYING: Policy(Fault.NONE, "An attempt failed for a passing reason; the next one follows by itself."),
    Reason.SUSPENDED: Policy(Fault.NONE, "Set spec.suspend to false to go on."),
    Reason.LIMIT_REACHED: Policy(Fault.NONE, "Wait, or raise the limit in the ExportClass that the message names."),
    Reason.SUCCEEDED: Policy(Fault.NONE, "The artifact is verified and published."),
    Reason.PROGRESSING: Policy(Fault.NONE, "Some targets are not finished yet."),
    Reason.TARGETS_FAILED: _user("Read the reason and the message of each failed target in status.targets."),
    Reason.INVALID_SPEC: _user("Correct the field that the message names and apply again."),
    Reason.UNSUPPORTED_TARGET: _user("Ask for a supported target, or set spec.supportLevel: Extended."),
    Reason.SOURCE_NOT_ALLOWED: _user("Put the file where the message says, or ask for another ExportClass."),
    Reason.CLASS_NOT_FOUND: _system("Create the ExportClass, or name another in spec.className.", retriable=True),
    Reason.CLASS_INVALID: _system("Correct the field of the ExportClass that the message names."),
    Reason.CLASS_NOT_ALLOWED: _user(
        "Name a class that serves the namespace, or have the namespace added to the class."
    ),
    Reason.CHECKPOINT_NOT_FOUND: _user("Upload the checkpoint, or correct spec.model.checkpoint.uri."),
    Reason.CHECKPOINT_UNREADABLE: _user("Upload the whole file again: .pt, .safetensors or .pt2."),
    Reason.CHECKPOINT_UNSAFE: _user("Save the model as .safetensors or .pt2: this pickle could run code."),
    Reason.CHECKPOINT_MISMATCH: _user("Correct spec.model so that it describes what the checkpoint holds."),
    Reason.DIGEST_MISMATCH: _user("Correct the sha256, or upload the file that it belongs to."),
    Reason.WEIGHTS_NOT_FINITE: _user("Export a checkpoint from before the training diverged."),
    Reason.CALIBRATION_NOT_FOUND: _user("Upload the pictures, or correct spec.calibration.dataset.uri."),
    Reason.CALIBRATION_INVALID: _user("Give a zip or a prefix that holds readable pictures (jpg, png, bmp, webp)."),
    Reason.CALIBRATION_TOO_LARGE: _user("Give fewer or smaller pictures; a few hundred are enough to calibrate."),
    Reason.CONVERSION_FAILED: _system("The converter cannot translate this model; report it with the message."),
    Reason.INSPECTION_FAILED: _system("The converter wrote another precision than asked for; report it."),
    Reason.VERIFICATION_FAILED: _user("Use a higher precision, or better calibration pictures; the numbers are given."),
    Reason.OUTPUT_REFUSED: _system("Ask who made the checkpoint: a conversion leaves nothing like this by itself."),
    Reason.BUCKET_NOT_FOUND: _system("Create the bucket, or correct the URI or the ExportClass."),
    Reason.STORAGE_DENIED: _system("Correct the credentials in the Secret of the ExportClass, or their permissions."),
    Reason.STORAGE_FULL: _system("Free space in the store or on the node, then apply again."),
    Reason.STORAGE_UNAVAILABLE: _system("Check the endpoint of the ExportClass and the store.", retriable=True),
    Reason.FILES_REMOVED: Policy(Fault.NONE, "The files went with their ModelExport, as spec.deletionPolicy asked."),
    Reason.FILES_REMAIN: _system("Remove the files that the message names by hand, if they are not wanted."),
    Reason.DEADLINE_EXCEEDED: _system("Raise spec.jobs.deadlineSeconds of the ExportClass, or give more CPU."),
    Reason.EVICTED: _system("Free what the node ran short of, or add a node.", retriable=True),
    Reason.IMAGE_PULL_FAILED: _system(
        "Correct spec.converter.image of the ExportClass, or its imagePullSecrets.", retriable=True
    ),
    Reason.JOB_REFUSED: _system("Change what refuses the Job: quota, admission or permissions.", retriable=True),
    Reason.NO_SUITABLE_NODE: _system("Add a node with what is missing, or change the pools.", retriable=True),
    Reason.OOM_KILLED: _system("The model needs more memory than its cell asks for; report it.", retriable=True),
    Reason.POD_REFUSED: _system("Raise the quota, or create what the message misses.", retriable=True),
    Reason.POD_START_FAILED: _system("Do what the message asks, often for a Secret of the class.", retriable=True),
    Reason.UNSCHEDULABLE: _system("Add a node that satisfies what the message names.", retriable=True),
    Reason.INTERNAL_ERROR: _system("A defect of ModelExport; report it with the message.", retriable=True),
}

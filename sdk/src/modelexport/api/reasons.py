"""The closed list of reasons, shared by conditions, events, metric labels and the converter's exit code.

The policy of a reason states whose fault it is and whether a retry can help; the exit code follows from the policy.
"""

from dataclasses import dataclass
from enum import StrEnum

from modelexport.names import ExitCode


class Fault(StrEnum):
    """Who has to act: nobody, the author of the ModelExport, or the platform team."""

    NONE = "None"
    USER = "User"
    SYSTEM = "System"


@dataclass(frozen=True)
class Policy:
    """The fault behind a reason, the advice, and whether a retry of the same Job can succeed."""

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
    WAIT_FOR_EVALUATION = "WaitForEvaluation"
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
    # The labelled images.
    EVALUATION_NOT_FOUND = "EvaluationNotFound"
    EVALUATION_INVALID = "EvaluationInvalid"
    # Conversion and verification.
    CONVERSION_FAILED = "ConversionFailed"
    INSPECTION_FAILED = "InspectionFailed"
    VERIFICATION_FAILED = "VerificationFailed"
    ACCURACY_LOST = "AccuracyLost"
    OUTPUT_REFUSED = "OutputRefused"
    # The store.
    BUCKET_NOT_FOUND = "BucketNotFound"
    STORAGE_DENIED = "StorageDenied"
    STORAGE_FULL = "StorageFull"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    # The files of a deleted export.
    FILES_REMOVED = "FilesRemoved"
    FILES_REMAIN = "FilesRemain"
    # The cluster.
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    EVICTED = "Evicted"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    INADMISSIBLE = "Inadmissible"
    JOB_REFUSED = "JobRefused"
    NO_SUITABLE_NODE = "NoSuitableNode"
    OOM_KILLED = "OOMKilled"
    POD_REFUSED = "PodRefused"
    POD_START_FAILED = "PodStartFailed"
    PREEMPTED = "Preempted"
    UNSCHEDULABLE = "Unschedulable"
    # Anything else: a bug in ModelExport.
    INTERNAL_ERROR = "InternalError"

    @property
    def policy(self) -> Policy:
        """The fault, the advice and whether a retry can help."""
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
    Reason.PENDING: Policy(Fault.NONE, "Not started yet."),
    Reason.QUEUED: Policy(Fault.NONE, "The Job exists and waits for a node or for Kueue."),
    Reason.RUNNING: Policy(Fault.NONE, "The converter is running."),
    Reason.RETRYING: Policy(Fault.NONE, "An attempt failed for a transient reason; the next one starts by itself."),
    Reason.SUSPENDED: Policy(Fault.NONE, "Set spec.suspend to false to resume."),
    Reason.LIMIT_REACHED: Policy(Fault.NONE, "Wait, or raise the limit in the ExportClass that the message names."),
    Reason.WAIT_FOR_EVALUATION: Policy(
        Fault.NONE, "Another target evaluates the original model first; this one starts when that one has ended."
    ),
    Reason.SUCCEEDED: Policy(Fault.NONE, "The artifact is verified and published."),
    Reason.PROGRESSING: Policy(Fault.NONE, "Some targets are not finished yet."),
    Reason.TARGETS_FAILED: _user("See the reason and the message of each failed target in status.targets."),
    Reason.INVALID_SPEC: _user("Correct the field that the message names and apply again."),
    Reason.UNSUPPORTED_TARGET: _user("Ask for a supported target, or set spec.supportLevel: Extended."),
    Reason.SOURCE_NOT_ALLOWED: _user("Move the file to a folder that the message names, or use another ExportClass."),
    Reason.CLASS_NOT_FOUND: _system("Create the ExportClass, or set another one in spec.className.", retriable=True),
    Reason.CLASS_INVALID: _system("Correct the field of the ExportClass that the message names."),
    Reason.CLASS_NOT_ALLOWED: _user("Use a class that allows the namespace, or add the namespace to the class."),
    Reason.CHECKPOINT_NOT_FOUND: _user("Upload the checkpoint, or correct spec.model.checkpoint.uri."),
    Reason.CHECKPOINT_UNREADABLE: _user("Upload the whole file again: .pt, .safetensors or .pt2."),
    Reason.CHECKPOINT_UNSAFE: _user("Save the model as .safetensors or .pt2; this pickle could run code."),
    Reason.CHECKPOINT_MISMATCH: _user("Correct spec.model to match the checkpoint."),
    Reason.DIGEST_MISMATCH: _user("Correct the sha256, or upload the matching file."),
    Reason.WEIGHTS_NOT_FINITE: _user("Export a checkpoint from before the training diverged."),
    Reason.CALIBRATION_NOT_FOUND: _user("Upload the images, or correct spec.calibration.dataset.uri."),
    Reason.CALIBRATION_INVALID: _user(
        "Use a zip archive, a prefix with readable images, or an image (jpg, png, bmp, webp)."
    ),
    Reason.CALIBRATION_TOO_LARGE: _user("Use fewer or smaller images; a few hundred are enough for calibration."),
    Reason.EVALUATION_NOT_FOUND: _user("Upload the labelled images, or correct spec.evaluation.dataset.uri."),
    Reason.EVALUATION_INVALID: _user("Correct the labels or the images that the message names, or spec.evaluation."),
    Reason.CONVERSION_FAILED: _system("The converter cannot translate this model; report it with the message."),
    Reason.INSPECTION_FAILED: _system("The converter wrote a different precision than requested; report it."),
    Reason.VERIFICATION_FAILED: _user(
        "Use a higher precision or better calibration images; the message has the numbers."
    ),
    Reason.ACCURACY_LOST: _user(
        "Use a higher precision or better calibration images, raise maxDrop, or set spec.evaluation.onDrop: Publish."
    ),
    Reason.OUTPUT_REFUSED: _system("Find out who made the checkpoint: a normal conversion does not write such output."),
    Reason.BUCKET_NOT_FOUND: _system("Create the bucket, or correct the URI or the ExportClass."),
    Reason.STORAGE_DENIED: _system("Correct the credentials in the Secret of the ExportClass, or their permissions."),
    Reason.STORAGE_FULL: _system("Free space in the store or on the node, then apply again."),
    Reason.STORAGE_UNAVAILABLE: _system("Check the endpoint of the ExportClass and the store.", retriable=True),
    Reason.FILES_REMOVED: Policy(
        Fault.NONE, "The files were removed with their ModelExport, as spec.deletionPolicy requested."
    ),
    Reason.FILES_REMAIN: _system("Remove the files that the message names by hand if they are not needed."),
    Reason.DEADLINE_EXCEEDED: _system("Raise spec.jobs.deadlineSeconds of the ExportClass, or give more CPU."),
    Reason.EVICTED: _system("Free the resource that the node ran out of, or add a node.", retriable=True),
    Reason.IMAGE_PULL_FAILED: _system(
        "Correct spec.converter.image of the ExportClass, or its imagePullSecrets.", retriable=True
    ),
    Reason.INADMISSIBLE: _system("Create or start the Kueue queue, or raise its quota.", retriable=True),
    Reason.JOB_REFUSED: _system(
        "Change the quota, admission policy or permission that rejects the Job.", retriable=True
    ),
    Reason.NO_SUITABLE_NODE: _system(
        "Add a node with the missing resources, or change the node pools.", retriable=True
    ),
    Reason.OOM_KILLED: _system("The model needs more memory than its cell requests; report it.", retriable=True),
    Reason.POD_REFUSED: _system("Raise the quota, or create the object that the message names.", retriable=True),
    Reason.POD_START_FAILED: _system("Follow the message; often a Secret of the class is missing.", retriable=True),
    Reason.PREEMPTED: Policy(Fault.NONE, "Kueue starts the Job again when quota is available."),
    Reason.UNSCHEDULABLE: _system("Add a node that meets the requirements in the message.", retriable=True),
    Reason.INTERNAL_ERROR: _system("A bug in ModelExport; report it with the message.", retriable=True),
}

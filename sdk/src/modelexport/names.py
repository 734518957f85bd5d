"""Names that several parts of ModelExport share: API, labels, environment variables, exit codes, files."""

from enum import IntEnum

GROUP = "modelexport.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

EXPORT_KIND = "ModelExport"
EXPORT_PLURAL = "modelexports"
EXPORT_SHORT_NAME = "mx"
CLASS_KIND = "ExportClass"
CLASS_PLURAL = "exportclasses"

FINALIZER = f"{GROUP}/files"
"""Finalizer of exports with ``deletionPolicy: Delete``; the operator adds and removes no other."""
DEFAULT_CLASS_ANNOTATION = f"{GROUP}/is-default-class"

LABEL_LIMIT = 63
"""Maximum length of a label value (kubernetes, apimachinery/pkg/util/validation)."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "modelexport-operator"
EXPORT_LABEL = f"{GROUP}/export"
EXPORT_UID_LABEL = f"{GROUP}/export-uid"
FORMAT_LABEL = f"{GROUP}/format"
PRECISION_LABEL = f"{GROUP}/precision"
TARGET_NAME_LABEL = f"{GROUP}/target-name"
"""Name of the target, if it has one."""
SPEC_HASH_LABEL = f"{GROUP}/spec-hash"
NODE_POOL_LABEL = f"{GROUP}/node-pool"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Label of a Job that makes Kueue manage it, with the name of its LocalQueue."""
WORKLOAD_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
"""Label of a Job with its Kueue WorkloadPriorityClass."""

REQUEST_ENV = "MODELEXPORT_REQUEST"
"""The ConversionRequest as JSON."""
JOB_ENV = "MODELEXPORT_JOB"
"""Optional: name of the Job, for the log of the conversion."""
STORE_ENV = "MODELEXPORT_STORE"
"""Endpoint of the S3 server (``http://`` or ``https://``), or a directory with one folder per bucket."""
ACCESS_KEY_ENV = "AWS_ACCESS_KEY_ID"
SECRET_KEY_ENV = "AWS_SECRET_ACCESS_KEY"
SESSION_TOKEN_ENV = "AWS_SESSION_TOKEN"
REGION_ENV = "AWS_REGION"
REGION_DEFAULT = "us-east-1"
CA_FILE_ENV = "MODELEXPORT_CA_FILE"
SOURCES_ENV = "MODELEXPORT_SOURCES"
"""Optional: folders from which a conversion may read, separated by spaces; URIs that end with a slash."""
HTTPS_NETWORKS_ENV = "MODELEXPORT_HTTPS_NETWORKS"
"""Optional: networks that ``https://`` sources may reach besides public addresses, separated by spaces."""
STORE_TIMEOUT_ENV = "MODELEXPORT_STORE_TIMEOUT_SECONDS"
"""Optional: seconds to wait for a store that does not answer, per operation."""
MOST_STORE_TIMEOUT_SECONDS = 7 * 24 * 3600
DEADLINE_ENV = "MODELEXPORT_DEADLINE"
"""Optional: seconds that a conversion may take; towards their end it tries nothing further."""
EXPORT_UID_ENV = "MODELEXPORT_EXPORT_UID"
"""UID of the export, stored with every published file; only files with this UID are deleted with the export."""
FILES_ENV = "MODELEXPORT_FILES"
"""URIs for the converter's ``clean`` and ``presign`` commands, as a JSON list."""
PUBLISHED_ENV = "MODELEXPORT_PUBLISHED"
"""URIs of files that were certainly published, as a JSON list; ``clean`` reports missing ones."""
REPORTS_ENV = "MODELEXPORT_REPORTS"
"""Optional: URIs of the reports of all targets of the export, by target, as a JSON object; the page shows them."""
CHECKPOINT_ENV = "MODELEXPORT_CHECKPOINT"
"""Path of a local checkpoint, for the converter's ``identify`` command."""
ARCHITECTURE_ENV = "MODELEXPORT_ARCHITECTURE"
"""Optional: the architecture that this checkpoint should have."""
WORK_DIR_ENV = "TMPDIR"
"""Scratch folder of one conversion, also for temporary files of libraries."""
INPUTS_ENV = "MODELEXPORT_INPUTS"
"""Folder that the step ``fetch`` writes and the later steps read."""
OUTPUTS_ENV = "MODELEXPORT_OUTPUTS"
"""Folder in which the step ``convert`` leaves the file and its draft report for the step ``publish``."""
SHARED_DIR_ENV = "MODELEXPORT_SHARED_DIR"
"""Optional: folder for converted files that the conversions of one export share."""
THREADS_ENV = "MODELEXPORT_THREADS"
"""Optional: number of threads of one conversion; default: the limit of the container or the machine."""
FORK_SERVER_ENV = "MODELEXPORT_FORK_SERVER"
"""Optional: descriptor of the socket of the process that forks the step ``convert`` of a local run."""
TERMINATION_LOG_ENV = "MODELEXPORT_TERMINATION_LOG"
TERMINATION_LOG_DEFAULT = "/dev/termination-log"
TERMINATION_MESSAGE_LIMIT = 4096
"""Maximum bytes of a termination message that the kubelet keeps."""

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
"""The page about all targets, in the folder of the export."""

FETCH, CONVERT, PUBLISH = "fetch", "convert", "publish"
"""The steps of a conversion, the converter's first argument; without an argument it runs all of them.

``convert`` opens untrusted files and holds no credentials.
"""
CLEAN, PRESIGN, IDENTIFY, FORK_SERVER = "clean", "presign", "identify", "fork-server"
"""Other commands of the converter, given as its first argument."""


class ExitCode(IntEnum):
    """Exit code of the converter, with the values of sysexits.h."""

    SUCCEEDED = 0
    USER_FAULT = 65
    SYSTEM_FAULT = 70
    RETRIABLE = 75


PERMANENT_EXIT_CODES = (ExitCode.USER_FAULT, ExitCode.SYSTEM_FAULT)

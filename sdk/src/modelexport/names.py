"""Every word that several parts of ModelExport must spell alike: API, labels, environment, exit codes, files."""

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
"""On an export whose files go with it, until they are gone; the operator adds and removes no other."""
DEFAULT_CLASS_ANNOTATION = f"{GROUP}/is-default-class"

LABEL_LIMIT = 63
"""Characters of a label's value, and of every name that becomes one (kubernetes, apimachinery/pkg/util/validation)."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "modelexport-operator"
EXPORT_LABEL = f"{GROUP}/export"
EXPORT_UID_LABEL = f"{GROUP}/export-uid"
FORMAT_LABEL = f"{GROUP}/format"
PRECISION_LABEL = f"{GROUP}/precision"
SPEC_HASH_LABEL = f"{GROUP}/spec-hash"
NODE_POOL_LABEL = f"{GROUP}/node-pool"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""By this label of a Job Kueue knows that it decides when the Job runs, and from which of its queues."""

REQUEST_ENV = "MODELEXPORT_REQUEST"
"""The ConversionRequest as JSON."""
JOB_ENV = "MODELEXPORT_JOB"
"""Optional name of the Job in which a conversion runs, for its log."""
STORE_ENV = "MODELEXPORT_STORE"
"""Endpoint of the S3 server (``http://`` or ``https://``), or a directory that holds one folder per bucket."""
ACCESS_KEY_ENV = "AWS_ACCESS_KEY_ID"
SECRET_KEY_ENV = "AWS_SECRET_ACCESS_KEY"
SESSION_TOKEN_ENV = "AWS_SESSION_TOKEN"
REGION_ENV = "AWS_REGION"
REGION_DEFAULT = "us-east-1"
CA_FILE_ENV = "MODELEXPORT_CA_FILE"
SOURCES_ENV = "MODELEXPORT_SOURCES"
"""Optional folders, parted by spaces, from which a conversion may read; each a URI that ends with a slash."""
HTTPS_NETWORKS_ENV = "MODELEXPORT_HTTPS_NETWORKS"
"""Optional networks, parted by spaces, to which ``https://`` sources may lead beside public addresses."""
PATIENCE_ENV = "MODELEXPORT_STORE_PATIENCE"
"""Optional number of seconds for which a store that does not answer is waited for, at each operation."""
MOST_PATIENCE = 7 * 24 * 3600
EXPORT_UID_ENV = "MODELEXPORT_EXPORT_UID"
"""The uid of the export: what a conversion publishes carries it, and only what carries it is removed with it."""
FILES_ENV = "MODELEXPORT_FILES"
"""The URIs on which the converter's ``clean`` and ``presign`` work, as a list in JSON."""
PUBLISHED_ENV = "MODELEXPORT_PUBLISHED"
"""Those of the files to remove that were published for sure, as a list in JSON; one that is not there is told."""
WORK_DIR_ENV = "TMPDIR"
"""Scratch folder of one conversion; libraries leave their own temporary files there, too."""
INPUTS_ENV = "MODELEXPORT_INPUTS"
"""Folder that the step ``fetch`` fills and the steps after it read."""
OUTPUTS_ENV = "MODELEXPORT_OUTPUTS"
"""Folder in which the step ``convert`` leaves a file and the draft of its report for the step ``publish``."""
SHARED_DIR_ENV = "MODELEXPORT_SHARED_DIR"
"""Optional folder through which the conversions of one export share the files that they start from."""
THREADS_ENV = "MODELEXPORT_THREADS"
"""Optional number of threads of one conversion; else what the container or the machine allows."""
TERMINATION_LOG_ENV = "MODELEXPORT_TERMINATION_LOG"
TERMINATION_LOG_DEFAULT = "/dev/termination-log"
TERMINATION_MESSAGE_LIMIT = 4096
"""Bytes that the kubelet keeps of a termination message."""

REPORT_FILE = "report.json"

FETCH, CONVERT, PUBLISH = "fetch", "convert", "publish"
"""The steps of a conversion, given to the converter as its first argument; without one it does all of them.

``convert`` opens what strangers wrote, and holds no credential.
"""
CLEAN, PRESIGN = "clean", "presign"
"""What else the converter does, given as its first argument."""


class ExitCode(IntEnum):
    """Exit status of the converter; the values are those of sysexits.h."""

    SUCCEEDED = 0
    USER_FAULT = 65
    SYSTEM_FAULT = 70
    RETRIABLE = 75


PERMANENT_EXIT_CODES = (ExitCode.USER_FAULT, ExitCode.SYSTEM_FAULT)

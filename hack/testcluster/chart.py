"""The chart of this repository, and the real Helm."""

import json
from typing import Any

import yaml

from testcluster.layout import REPOSITORY, tool
from testcluster.shell import output

CHART = REPOSITORY / "helm/modelexport-operator"
RELEASE = "modelexport-operator"
NAMESPACE = "modelexport-system"

Body = dict[str, Any]


def helm(*arguments: str, **options: Any) -> str:
    """Run Helm and return its output.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return output([tool("helm"), *arguments], **options)


def render(values: Body | None = None, *options: str) -> str:
    """Return the manifest that the chart renders with the given values."""
    command = ["template", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--values=-", *options]
    return helm(*command, input=json.dumps(values or {}))


def load(manifest: str) -> list[Body]:
    """Return the objects of a manifest."""
    return [body for body in yaml.safe_load_all(manifest) if body]

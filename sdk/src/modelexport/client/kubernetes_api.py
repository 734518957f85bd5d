"""The API server, through the official client: kubeconfig or in-cluster, with the rights of the user."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3
from kubernetes import client, config

from modelexport import names
from modelexport.client.cluster import Body
from modelexport.errors import BadInput, ClusterError
from modelexport.text import clean

REQUEST_SECONDS = 30
JSON = "application/json"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
MESSAGE_LIMIT, FIELD_LIMIT = 2048, 253
NOT_FOUND, CONFLICT = 404, 409


class KubernetesApi:
    """A ``Cluster``: one namespace of an API server; every method raises ``ClusterError``."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    @classmethod
    def connect(cls, kubeconfig: str | None, context: str | None, namespace: str | None) -> "KubernetesApi":
        """Connect by the service account of a Pod, or else by the user's kubeconfig, which an argument chooses.

        Raises:
            BadInput: there is no usable configuration.
        """
        configuration = client.Configuration()
        try:
            if kubeconfig is None and context is None and NAMESPACE_FILE.exists():
                config.load_incluster_config(client_configuration=configuration)
                found = NAMESPACE_FILE.read_text(encoding="ascii").strip()
            else:
                config.load_kube_config(kubeconfig, context, client_configuration=configuration)
                contexts, active = config.list_kube_config_contexts(kubeconfig)
                chosen = next((one for one in contexts if one["name"] == context), active) if context else active
                found = str(chosen["context"].get("namespace") or "default")
        except config.ConfigException as error:
            way_out = "set KUBECONFIG or kubeconfig= to a file, and context= to one of its contexts"
            raise BadInput(f"no cluster is configured: {error}; {way_out}") from error
        configuration.retries = False  # ``Client.wait`` decides what is tried again
        return cls(client.ApiClient(configuration), namespace or found)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def read_export(self, name: str) -> Body:
        """Return a ModelExport."""
        return self._request("GET", f"{self._exports()}/{quote(name)}")

    def list_exports(self) -> list[Body]:
        """Return the ModelExports of the namespace."""
        return _items(self._request("GET", self._exports()))

    def create_export(self, body: Body) -> Body:
        """Create a ModelExport and return it; unknown fields are refused."""
        return self._request("POST", self._exports(), body, {"fieldValidation": "Strict"})

    def delete_export(self, name: str) -> None:
        """Delete a ModelExport."""
        self._request("DELETE", f"{self._exports()}/{quote(name)}")

    def list_jobs(self, selector: str) -> list[Body]:
        """Return the Jobs that a label selector matches."""
        path = f"/apis/batch/v1/namespaces/{quote(self.namespace)}/jobs"
        return _items(self._request("GET", path, query={"labelSelector": selector}))

    def create_pod(self, pod: Body) -> None:
        """Create a Pod."""
        self._request("POST", self._pods(), pod)

    def read_pod(self, name: str) -> Body:
        """Return a Pod."""
        return self._request("GET", f"{self._pods()}/{quote(name)}")

    def read_log(self, name: str, limit: int) -> str:
        """Return at most the first ``limit`` bytes of the log of a Pod."""
        path = f"{self._pods()}/{quote(name)}/log"
        return self._send("GET", path, query={"limitBytes": str(limit)}).decode(errors="replace")

    def delete_pod(self, name: str) -> None:
        """Delete a Pod, unless it has gone, and do not wait for its end."""
        try:
            self._request("DELETE", f"{self._pods()}/{quote(name)}")
        except ClusterError as error:
            if error.status != NOT_FOUND:
                raise

    def _exports(self) -> str:
        return f"/apis/{names.API_VERSION}/namespaces/{quote(self.namespace)}/{names.EXPORT_PLURAL}"

    def _pods(self) -> str:
        return f"/api/v1/namespaces/{quote(self.namespace)}/pods"

    def _request(
        self, method: str, path: str, body: Body | None = None, query: Mapping[str, str] | None = None
    ) -> Body:
        answer: Body = json.loads(self._send(method, path, body, query))
        return answer

    def _send(self, method: str, path: str, body: Body | None = None, query: Mapping[str, str] | None = None) -> bytes:
        try:
            parameters = self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "*/*", **({"Content-Type": JSON} if body is not None else {})},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._api.call_api(*parameters, _request_timeout=REQUEST_SECONDS)
            content: bytes = response.read()
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            host = self._api.configuration.host
            raise ClusterError(f"{host} does not answer: {error}; check the cluster and the kubeconfig") from error
        if response.status >= 300:
            raise _refusal(response.status, content)
        return content


def _items(listing: Body) -> list[Body]:
    items: list[Body] = listing["items"]
    return items


def _refusal(status: int, content: bytes) -> ClusterError:
    """Return the error of an answer: the server's message, and the field that it names first."""
    try:
        answer: Any = json.loads(content)
        message = str(answer["message"])
    except (ValueError, KeyError, TypeError):
        return ClusterError(f"the API server answered {status}: {content[:200].decode(errors='replace')}", status)
    causes = (answer.get("details") or {}).get("causes") or ()
    field = next((clean(str(cause["field"]), FIELD_LIMIT) for cause in causes if cause.get("field")), None)
    return ClusterError(message[:MESSAGE_LIMIT], status, field=field)

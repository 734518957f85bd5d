"""The custom resource definitions, and the operator's rights from the chart."""

from testcluster.chart import NAMESPACE, Body, load, render
from testcluster.layout import REPOSITORY
from testplane.control_plane import ControlPlane, wait_until

RIGHTS = "templates/rbac.yaml"


def install_definitions(plane: ControlPlane) -> None:
    """Install the definitions and the rights of two operators, and wait until the definitions are served."""
    plane.kubectl("apply", "--filename", str(REPOSITORY / "crds"))
    plane.kubectl("create", "namespace", NAMESPACE)
    plane.kubectl("apply", "--filename=-", text=render_rights())
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
    # The condition appears a moment before the API server serves them.
    wait_until("the definitions to be served", lambda: _is_served(plane, "modelexports,exportclasses"))


def _is_served(plane: ControlPlane, kinds: str) -> bool:
    try:
        plane.kubectl("get", kinds, "--all-namespaces")
    except AssertionError:
        return False
    return True


def render_rights() -> str:
    """The rights of two operators and of their users, as a manifest."""
    return render({"replicas": 2}, f"--show-only={RIGHTS}")


def rights_of_the_operator() -> list[Body]:
    """The roles of the operator, without the one of its users."""
    rendered = load(render({"replicas": 2, "rbac": {"userRole": False}}, f"--show-only={RIGHTS}"))
    return [body for body in rendered if body["kind"] in ("ClusterRole", "Role")]

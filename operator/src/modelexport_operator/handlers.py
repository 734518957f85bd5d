"""What kopf hears is handed on; nothing is decided, written or remembered here.

kopf brings the watches with their reconnects and credentials. Its handlers do not write into users' objects: low-level
events need neither annotations nor finalizers, and posting and peering are off.
"""

from collections.abc import Iterable
from typing import Any

import kopf

from modelexport_operator.controller import Controller
from modelexport_operator.resources import OWN, Resource


def build_registry(controller: Controller) -> kopf.OperatorRegistry:
    """Build kopf's registry: the kinds that users write are handed to the controller."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_via_client)
    for resource in OWN:
        _watch(registry, controller, resource)
    return registry


def _watch(registry: kopf.OperatorRegistry, controller: Controller, resource: Resource) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, id=f"watch-{resource.plural}", registry=registry)
    async def take_over(event: kopf.RawEvent, **_: Any) -> None:
        controller.take_over(resource, event["type"], event["object"])


class NothingKept(kopf.DiffBaseStorage):
    """Keeps and compares no former state.

    kopf's own storages copy every object of every event deeply to find changes that no handler of ours asks for: at a
    thousand Jobs that was half of the operator's processor time.
    """

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """What of an object would be compared: nothing."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """What an object was when it was handled last: unknown."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Leave the object as it is."""


def build_settings() -> kopf.OperatorSettings:
    """Build kopf's settings: watch only what is ours, and leave no trace."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = NothingKept()
    # The kinds are there before the operator starts; looking for new ones would need to read all namespaces and CRDs.
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = 1.0
    settings.networking.connect_timeout = 10.0
    for resource in OWN:
        if resource.selector:
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = resource.selector
    return settings

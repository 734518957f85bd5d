"""The user's own kubectl: whatever it may do, with whatever credentials, and nothing more."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelexport.cli.documents import BadInput

REQUEST_SECONDS = 60
Body = dict[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the flags that choose cluster and namespace."""

    flags: Sequence[str] = ()

    def run(self, *arguments: str, text: str = "") -> str:
        """Return what kubectl prints.

        Raises:
            BadInput: it is not there, or says no, with its words.
        """
        command = ["kubectl", *self.flags, *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - arguments, not a shell
                command, input=text, capture_output=True, text=True, check=False, timeout=REQUEST_SECONDS
            )
        except FileNotFoundError as error:
            raise BadInput("kubectl is not on the PATH; install it, or name a local store with --store") from error
        except subprocess.TimeoutExpired as error:
            raise BadInput(f"kubectl {arguments[0]} did not end within {REQUEST_SECONDS} s; try again") from error
        if done.returncode != 0:
            raise BadInput(f"kubectl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def read(self, *arguments: str) -> Body:
        """Return an object, or a list of them, as data."""
        body: Body = json.loads(self.run("get", *arguments, "--output=json"))
        return body

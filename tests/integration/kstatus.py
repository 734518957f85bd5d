"""The real kstatus, by which Flux judges."""

import json
import subprocess

from testcluster.layout import module_dir
from testcluster.tools import install_gitops
from testplane.api import Body


def ask_kstatus(*bodies: Body) -> list[str]:
    """One status per object: InProgress, Current, Failed or Terminating."""
    install_gitops()
    program, text = module_dir("kstatus") / "kstatus", "\n".join(map(json.dumps, bodies))
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]

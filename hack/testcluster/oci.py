"""OCI image layouts: the difference from an image that the node has, and the import of that difference."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from testcluster import containerd
from testcluster.shell import ClusterError

Document = dict[str, Any]


def blob(layout: str, digest: str) -> Path:
    """Return where a layout keeps a blob."""
    return Path(layout) / "blobs" / digest.replace(":", "/")


def expect_layers(layout: str, parent: str) -> None:
    """Pretend that the layout has the uncompressed layers of a parent image, so that they are not written again."""
    (Path(layout) / "blobs/sha256").mkdir(parents=True)
    for digest in containerd.config_of(parent)["rootfs"]["diff_ids"]:
        blob(layout, digest).touch()


def share_layers(layout: str, parent: str) -> None:
    """Make the image of a layout refer to the layers of its parent as the node has them.

    The same layers have another digest there, because they are compressed; the image's configuration names them by
    their uncompressed content and stays unchanged.
    """
    layers = containerd.manifest_of(parent)["layers"]
    index_file = Path(layout) / "index.json"
    index = json.loads(index_file.read_text())
    [descriptor] = index["manifests"]
    manifest = json.loads(blob(layout, descriptor["digest"]).read_text())
    manifest["layers"][: len(layers)] = layers
    descriptor |= write_blob(layout, manifest)
    index_file.write_text(json.dumps(index))
    for digest in containerd.config_of(parent)["rootfs"]["diff_ids"]:
        blob(layout, digest).unlink()


def write_blob(layout: str, document: Document) -> Document:
    """Write a document into a layout and return digest and size of its descriptor."""
    content = json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blob(layout, digest).write_bytes(content)
    return {"digest": digest, "size": len(content)}


def import_layout(layout: str, image: str) -> None:
    """Import the image of a layout into the node; the node must have the layers that the layout lacks.

    Raises:
        ClusterError: containerd refuses it.
    """
    with subprocess.Popen(["tar", "--create", f"--directory={layout}", "."], stdout=subprocess.PIPE) as archive:
        try:
            containerd.import_archive(archive.stdout)
        except ClusterError:
            # containerd keeps the name of an image whose layers it refused, and the image would count as present.
            containerd.remove([name for name in containerd.images() if name == image])
            raise

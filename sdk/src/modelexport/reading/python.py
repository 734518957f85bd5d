"""Programs in Python: one image in, the shapes and first values of all outputs out."""

from modelexport.matrix.support import Format
from modelexport.reading.facts import CHANNELS, Facts

PACKAGES = {
    Format.LITERT: "ai-edge-litert",
    Format.ONNX: "onnxruntime",
    Format.PYTORCH: "torch",
    Format.TENSORFLOW: "tensorflow",
    Format.EXECUTORCH: "executorch, torch",
}
"""The packages that open a format."""


def write(facts: Facts) -> str:
    """Return a program that opens a file and runs it on an image."""
    imports, run = _RUN[facts.format]
    opened = run.format(
        file=facts.file,
        folder=facts.file.removesuffix(".zip"),
        input=facts.image.name,
        outputs=", ".join(f'"{output.name}"' for output in facts.outputs),
    )
    packages = f"{PACKAGES[facts.format]}, numpy and pillow"
    head = f"# Runs {facts.file}, with the packages {packages}:\n#     python program.py photo.jpg"
    return f"{head}\n{imports}\n{prepare(facts)}\n\n{opened}\n{_SHOW}"


def prepare(facts: Facts) -> str:
    """Return the lines that make the input of the file, ``image``, from the photo that the program is given."""
    (height, width), mode = facts.size, CHANNELS[facts.channels]
    colours = "RGBA" if facts.channels in (2, 4) else "RGB"
    lines = [f'photo = Image.open(sys.argv[1]).convert("{colours}")', f"width, height = {width}, {height}"]
    lines += _RESIZE[facts.resize].replace("COLOURS", colours).replace("GREY", repr((114,) * len(colours))).split("\n")
    kind = facts.image.type
    whole = kind == "uint8"
    shaped = "[:, :, None]" if facts.channels == 1 else ""
    changed = "" if mode == colours else f'.convert("{mode}")'
    lines.append(f"image = np.asarray(resized{changed}, np.{'uint8' if whole else 'float32'}){shaped}")
    if facts.mean:
        lines.append("image = image / np.float32(255)")
    if facts.normalises:
        mean, std = ([round(value, 9) for value in values] for values in (facts.mean, facts.std))
        lines.append(f"image = (image - np.array({mean}, np.float32)) / np.array({std}, np.float32)")
    if facts.scale:
        scale, zero_point = facts.scale
        lines.append(f"image = (np.rint(image / np.float32({scale!r})) + {zero_point}).clip(-128, 127).astype(np.int8)")
    axes = "" if facts.channels_last else ".transpose(2, 0, 1)"
    lines.append(f"image = np.ascontiguousarray(image{axes}[None])  # {list(facts.image.shape)}, {kind}")
    if facts.batch > 1:
        lines.append(f"image = np.repeat(image, {facts.batch}, axis=0)  # the file takes {facts.batch} images")
    return "\n".join(lines)


_RESIZE = {
    "letterbox": """\
scale = min(width / photo.width, height / photo.height)
size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
left, top = round((width - size[0]) / 2 - 0.1), round((height - size[1]) / 2 - 0.1)
resized = Image.new("COLOURS", (width, height), GREY)
resized.paste(photo.resize(size, Image.Resampling.BILINEAR), (left, top))""",
    "centre_crop": """\
scale = max(width / photo.width, height / photo.height)
size = max(width, int(photo.width * scale)), max(height, int(photo.height * scale))
left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
resized = photo.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))""",
    "stretch": "resized = photo.resize((width, height), Image.Resampling.BILINEAR)",
}
_RUN = {
    Format.LITERT: (
        """\
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
""",
        """\
runner = Interpreter("{file}").get_signature_runner("serving_default")
answers = runner(**{{"{input}": image}})
outputs = {{name: answers[name] for name in [{outputs}]}}""",
    ),
    Format.ONNX: (
        """\
import sys

import numpy as np
import onnxruntime
from PIL import Image
""",
        """\
session = onnxruntime.InferenceSession("{file}")
names = [{outputs}]
outputs = dict(zip(names, session.run(names, {{"{input}": image}})))""",
    ),
    Format.PYTORCH: (
        """\
import sys

import numpy as np
import torch
from PIL import Image
""",
        """\
network = torch.export.load("{file}").module()
with torch.inference_mode():
    answers = network(torch.from_numpy(image))
outputs = {{name: answers[name].numpy() for name in [{outputs}]}}""",
    ),
    Format.TENSORFLOW: (
        """\
import sys
import zipfile

import numpy as np
import tensorflow as tf
from PIL import Image
""",
        """\
zipfile.ZipFile("{file}").extractall()
network = tf.saved_model.load("{folder}").signatures["serving_default"]
answers = network(**{{"{input}": tf.constant(image)}})
outputs = {{name: answers[name].numpy() for name in [{outputs}]}}""",
    ),
    Format.EXECUTORCH: (
        """\
import sys

import numpy as np
import torch
from executorch.runtime import Runtime
from PIL import Image
""",
        """\
network = Runtime.get().load_program("{file}").load_method("forward")
answers = network.execute([torch.from_numpy(image)])  # it takes {input} and names no outputs
outputs = {{name: values.numpy() for name, values in zip([{outputs}], answers)}}""",
    ),
}
_SHOW = """\
for name, values in outputs.items():
    print(name, values.shape, *values.ravel()[:3])
"""

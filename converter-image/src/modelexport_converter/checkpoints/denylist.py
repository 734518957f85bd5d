"""Lists names in a pickle that can harm users of ``pickle`` or ``torch.load(weights_only=False)``. Pure.

The converter never imports or calls any name of a pickle, so this list protects nothing here: it only decides whether a
user is warned of a malicious file. Every name of the standard library counts as harmful except those in pickles of real
trainings; of other packages, names that are known to run code, load libraries or open files.
"""

import sys


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HARMLESS = _words(
    "__builtin__ __future__ _codecs _collections _decimal _io _operator _random _weakref abc argparse array base64 "
    "binascii bisect builtins calendar codecs collections contextlib copy copyreg dataclasses datetime decimal enum "
    "exceptions fractions functools genericpath hashlib heapq io ipaddress itertools json locale logging math ntpath "
    "numbers operator pathlib platform posixpath queue random re sched sre_constants statistics string struct textwrap "
    "threading time traceback types typing unicodedata urllib uuid warnings weakref zlib zoneinfo copy_reg"
)
"""Modules of the standard library in pickles of trainings: data, and functions without effects of their own."""

_OF_PYTHON_2 = _words("commands cPickle popen2 StringIO cStringIO urllib2 _winreg")

_HARMFUL = _words(
    # Builtins that run text or access anything by its name.
    "builtins.__import__ builtins.breakpoint builtins.compile builtins.delattr builtins.eval builtins.exec "
    "builtins.execfile builtins.exit builtins.file builtins.globals builtins.help builtins.input builtins.locals "
    "builtins.open builtins.quit builtins.raw_input builtins.reload builtins.setattr builtins.vars "
    # Parts of harmless modules that call, open or create code.
    "functools.reduce operator.attrgetter operator.methodcaller _operator.attrgetter _operator.methodcaller "
    "types.CodeType types.FunctionType types.LambdaType logging.FileHandler logging.config logging.handlers "
    "urllib.request urllib.robotparser io.open io.open_code io.FileIO _io.open _io.open_code _io.FileIO codecs.open "
    "codecs.StreamReaderWriter platform.popen weakref.finalize "
    # Of torch, numpy and other packages: code from text, libraries, downloads, further pickles.
    "torch.hub torch.load torch.ops torch.classes torch.jit torch.package torch.from_file torch.serialization.load "
    "torch.utils.cpp_extension torch.utils.collect_env torch.utils.bottleneck torch.utils.data.datapipes "
    "torch.utils.model_zoo torch.utils.tensorboard torch.utils._config_module torch.fx.graph_module "
    "torch.fx._lazy_graph_module torch.fx.experimental torch.distributed.rpc torch.distributed.elastic torch._inductor "
    "torch._dynamo.guards torch.storage._load_from_bytes "
    "numpy.load numpy.fromfile numpy.memmap numpy.testing numpy.f2py numpy.distutils numpy.lib.npyio numpy.loadtxt "
    "numpy.genfromtxt numpy.ctypeslib numpy.DataSource pandas.eval pandas.read_pickle pandas.io numexpr.evaluate "
    "sympy.sympify joblib.load cloudpickle.load cloudpickle.loads dill.load dill.loads yaml.load yaml.unsafe_load"
)
"""Harmful names, and modules with everything below them."""

_PACKAGES = _words(
    "_distutils_hack cffi distutils ensurepip fabric gdown git httpx huggingface_hub invoke IPython jupyter paramiko "
    "pexpect pip pkg_resources plumbum pwn requests setuptools sh urllib3 uv wget"
)
"""Packages that run commands, fetch files or install; no network consists of them."""

_ANYWHERE = _words(
    "__builtin__ builtins ctypes importlib marshal nt os pdb posix pty runpy shutil socket subprocess sys webbrowser"
)
"""Harmful as any part of a dotted name: ``torch.serialization.os.system`` is the system's own."""


def is_harmful(path: str) -> bool:
    """Return whether calling a dotted name, e.g. ``posix.system``, can do harm."""
    parts = path.replace("__builtin__.", "builtins.").split(".")
    if any(map(_reaches_out, parts[1:])) or parts[0] in _PACKAGES | _OF_PYTHON_2:
        return True
    if parts[0] in sys.stdlib_module_names and parts[0] not in _HARMLESS:
        return True
    return any(".".join(parts[: end + 1]) in _HARMFUL for end in range(len(parts)))


def is_harmful_attribute(name: str) -> bool:
    """Return whether ``getattr`` of a name leads from a harmless object to code, globals or interpreter classes."""
    return any(map(_reaches_out, name.split(".")))


def _reaches_out(part: str) -> bool:
    return part in _ANYWHERE or (part.startswith("__") and part.endswith("__") and part not in ("__main__", "__init__"))

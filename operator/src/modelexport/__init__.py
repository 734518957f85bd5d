"""The contract of ModelExport: what operator, converter, command line and generated documents agree on.

Everything here but ``modelexport.cli`` and the writer of ``crds/`` is pure and uses the standard library only.
"""

__version__ = "0.1.0"

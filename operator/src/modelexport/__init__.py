"""The contract of ModelExport: what operator, converter, command line and generated documents agree on.

Everything here but ``modelexport.cli``, ``modelexport.logs`` and the writer of generated files is pure; all but the
command line uses the standard library only.
"""

__version__ = "0.1.0"

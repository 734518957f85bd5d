"""Reads ``.pt2`` archives of ``torch.export.save`` as data, whoever wrote them.

``archive`` and ``weights`` read records, ``fields`` and ``arguments`` check the types of JSON, ``operators`` is the
table of what a program may compute, ``reading`` builds a graph of our own from them, ``graph`` says what that is,
``building`` finds the shape of every value and makes changes in place pure, and ``module`` runs the graph. Neither
``torch.export.load`` nor torch's reader of treespecs sees the archive, and no text of it becomes code, an attribute or
the name of a file.
"""

"""Reads ``.pt2`` archives of ``torch.export.save`` as data, from any author.

``archive`` and ``stored_tensors`` read records, ``json_fields`` and ``arguments`` check the types of JSON,
``operators`` is the table of allowed operators, ``reader`` turns them into a graph as defined in ``graph``,
``builder`` finds the shape of every value and makes in-place changes pure, and ``module`` runs the graph. Neither
``torch.export.load`` nor torch's treespec reader sees the archive, and no text of it becomes code, an attribute or
a file name.
"""

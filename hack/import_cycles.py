"""A contract of import-linter: no module imports itself through others.

The contract ``acyclic_siblings`` of import-linter compares siblings; it does not see a package whose ``__init__``
imports one of its own modules, which imports the package. This one looks at modules, imports within functions included.
"""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output

from cycles import find_cycles


class AcyclicModules(Contract):
    """Fails if modules of the root packages import each other in a circle. It has no options."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look for cycles in the graph of all root packages."""
        imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        cycles = find_cycles(imports)
        return ContractCheck(kept=not cycles, metadata={"cycles": cycles})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print every cycle."""
        for cycle in check.metadata["cycles"]:
            output.print_error(" -> ".join(cycle), bold=False)
        output.print_error("Move what both need into a module of its own, or hand it over as an argument.", bold=False)

"""Finds cycles in a graph of imports."""

from collections.abc import Iterable, Mapping


def find_cycles(imports: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return cycles of imports as closed paths, so many that each further one shares a module with one of them.

    Args:
        imports: the modules that each module imports directly.
    """
    cycles: list[list[str]] = []
    seen: set[str] = set()
    for module in sorted(imports):
        if module in seen:
            continue
        origins: dict[str, str] = {}
        reached = [module]
        for importer in reached:  # grows: breadth first, so that the first way back is a shortest one
            for imported in sorted(imports.get(importer, ())):
                if imported not in origins:
                    origins[imported] = importer
                    reached.append(imported)
        if module in origins:
            path = [module]
            while path[-1] != module or len(path) == 1:
                path.append(origins[path[-1]])
            if seen.isdisjoint(path):
                cycles.append(path[::-1])
            seen.update(path)
    return cycles

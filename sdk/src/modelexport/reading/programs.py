"""The programs of a file: one for each language in which its format is opened."""

from collections.abc import Callable, Mapping

from modelexport.matrix.support import Format
from modelexport.reading import cpp, kotlin, python, swift
from modelexport.reading.facts import Facts

WRITERS: Mapping[Format, Mapping[str, Callable[[Facts], str]]] = {
    Format.LITERT: {"Kotlin": kotlin.write, "Python": python.write, "C++": cpp.write},
    Format.ONNX: {"Python": python.write, "C++": cpp.write},
    Format.COREML: {"Swift": swift.write},
    Format.PYTORCH: {"Python": python.write},
    Format.TENSORFLOW: {"Python": python.write},
    Format.EXECUTORCH: {"Python": python.write},
}
"""The languages of each format, the one that most apps use first."""
TYPED, UNTYPED = cpp.TYPES.keys() & kotlin.READERS.keys(), ("Python", "Swift")
"""The types of outputs that every language reads, and the languages that read others as well."""
LANGUAGES = tuple(dict.fromkeys(language for writers in WRITERS.values() for language in writers))


def write_programs(facts: Facts) -> dict[str, str]:
    """Return the programs that open a file, by their languages."""
    writers = WRITERS[facts.format]
    if not {output.type for output in facts.outputs} <= TYPED:
        writers = {language: write for language, write in writers.items() if language in UNTYPED}
    return {language: write(facts) for language, write in writers.items()}

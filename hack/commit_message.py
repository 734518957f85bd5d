"""Checks a commit message: the commit-msg hook of ``.pre-commit-config.yaml``."""

import sys
from pathlib import Path

LONGEST_SUBJECT = 72


def find_problem(message: str) -> str | None:
    """Return the problem of a commit message, or ``None``; lines that begin with # are Git's own."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject = lines[0].rstrip() if lines else ""
    if not subject:
        return "the first line is the subject, and it is empty"
    if len(subject) > LONGEST_SUBJECT:
        return f"the subject has {len(subject)} characters, at most {LONGEST_SUBJECT} fit; move the rest to the body"
    if len(lines) > 1 and lines[1].strip():
        return "the second line is not empty: it separates subject and body"
    return None


def main(path: str) -> int:
    """Check the message in a file; the exit code says whether Git may commit."""
    problem = find_problem(Path(path).read_text(encoding="utf-8"))
    if problem:
        print(f"commit message: {problem}", file=sys.stderr)
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

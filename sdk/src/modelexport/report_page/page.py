"""Renders the targets of one export as a self-contained HTML page: no script, nothing from elsewhere.

Reports hold names out of checkpoints and texts from a store. The page is built as a tree, so that every text and every
attribute is escaped where it is written, and its policy (CSP) forbids scripts, forms and requests.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from modelexport.matrix.support import BACKENDS
from modelexport.report_page.target import GRID, Answer, Sample, Target
from modelexport.version import __version__

MIB = 1 << 20
SHOWN_CLASSES = 20
"""Rows of the table of classes: those that lose most."""
STYLE = (Path(__file__).with_name("page.css")).read_text(encoding="utf-8")
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; form-action 'none'"
_BAR_HEIGHT, _LETTER_WIDTH, _BAR_WIDTH, _VALUE_WIDTH = 22, 9, 260, 90


def render(name: str, targets: Sequence[Target]) -> str:
    """Return the page of an export and its targets."""
    root = Element("html", lang="en")
    head, body = SubElement(root, "head"), SubElement(root, "body")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "meta", name="color-scheme", content="light dark")
    _add(head, "title", f"{name}: report")
    SubElement(head, "style").text = STYLE
    main = SubElement(body, "main")
    _add(main, "h1", name)
    _add_terms(main, next((target.facts for target in targets if target.facts), {}))
    _add_table(main, targets)
    _add_plots(main, targets)
    _add_classes(main, targets)
    for target in targets:
        _add_target(main, target)
    if versions := _collect_versions(targets):
        details = SubElement(main, "details")
        _add(details, "summary", "Versions")
        _add_terms(details, versions)
    _add(main, "footer", f"Written by modelexport {__version__}.")
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def _collect_versions(targets: Iterable[Target]) -> Mapping[str, str]:
    """Return what made the files of all targets; after an upgrade a tool can have several versions."""
    found: dict[str, list[str]] = {}
    for name, version in (item for target in targets for item in (target.versions or {}).items()):
        found[name] = [*dict.fromkeys((*found.get(name, ()), version))]
    return {name: ", ".join(versions) for name, versions in sorted(found.items())}


def _add(parent: Element, tag: str, text: str = "", **attributes: str) -> Element:
    element = SubElement(parent, tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    element.text = text
    return element


def _add_terms(parent: Element, values: Mapping[str, str]) -> None:
    listed = SubElement(parent, "dl")
    for name, value in values.items():
        _add(listed, "dt", name)
        _add(listed, "dd", value)


_COLUMNS: Mapping[str, Callable[[Target], str | None]] = {
    "State": lambda target: target.published.state,
    "Recipe": lambda target: target.published.recipe,
    "Accuracy": lambda target: f"{found.value} (drop {found.drop})" if (found := target.published.accuracy) else None,
    "Fidelity": lambda target: (
        f"{proof.fidelity.metric} {proof.fidelity.value}"
        if (proof := target.published.verification) and proof.fidelity
        else None
    ),
    "Agreement": lambda target: (
        f"{proof.value} ≥ {proof.threshold}" if (proof := target.published.verification) else None
    ),
    "MiB": lambda target: f"{target.published.artifact.size_bytes / MIB:.2f}" if target.published.artifact else None,
    "ms": lambda target: None if target.latency is None else f"{target.latency * 1000:.1f}",
    "Seconds": lambda target: None if target.seconds is None else f"{target.seconds:.1f}",
    "Peak MiB": lambda target: None if target.peak_mib is None else str(target.peak_mib),
}
"""The columns of the table of targets; one that is empty for all of them is left out."""


def _add_table(parent: Element, targets: Sequence[Target]) -> None:
    columns = {title: [show(target) for target in targets] for title, show in _COLUMNS.items()}
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    rows = [
        (target.published.target, *(cells[index] or "-" for cells in shown.values()))
        for index, target in enumerate(targets)
    ]
    _add_rows(parent, ("Target", *shown), rows)


def _add_rows(parent: Element, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Add a table, which scrolls where it is too wide; the first cell of a row is its header."""
    table = SubElement(SubElement(parent, "div", {"class": "wide", "tabindex": "0"}), "table")
    head, body = SubElement(SubElement(table, "thead"), "tr"), SubElement(table, "tbody")
    for title in titles:
        _add(head, "th", title, scope="col")
    for name, *cells in rows:
        row = SubElement(body, "tr")
        _add(row, "th", name, scope="row")
        for cell in cells:
            _add(row, "td", cell)


def _add_plots(parent: Element, targets: Sequence[Target]) -> None:
    named = [(target.published.target, target, target.published) for target in targets]
    accuracies = [(name, one.accuracy) for name, _, one in named if one.accuracy]
    shares = {
        f"Accuracy ({accuracies[0][1].metric})" if accuracies else "": [
            *(("original", float(accuracy.original)) for _, accuracy in accuracies[:1]),
            *((name, float(accuracy.value)) for name, accuracy in accuracies),
        ],
        "Fidelity": [
            (name, float(one.verification.fidelity.value))
            for name, _, one in named
            if one.verification and one.verification.fidelity
        ],
        "Agreement": [(name, float(one.verification.value)) for name, _, one in named if one.verification],
    }
    amounts = {
        "Size in MiB": [(name, one.artifact.size_bytes / MIB) for name, _, one in named if one.artifact],
        LATENCY: [(name, target.latency * 1000) for name, target, _ in named if target.latency is not None],
        "Seconds of the conversion": [(name, t.seconds) for name, t, _ in named if t.seconds is not None],
    }
    section = SubElement(parent, "section", {"class": "plots"})
    for plots, digits in ((shares, 4), (amounts, 1)):
        for title, values in plots.items():
            if values:
                _add_bars(section, title, values, digits)
    if silent := [name for name, _, one in named if one.artifact and name.partition("/")[0] in _WITHOUT_RUNTIME]:
        text = f"{', '.join(silent)}: no latency. We run these files in an evaluator of ours, {NO_LATENCY}."
        _add(parent, "p", text, class_="note")


LATENCY = "Milliseconds per image, to compare files of one format"
NO_LATENCY = "and its time says nothing about a device"
_WITHOUT_RUNTIME = frozenset(str(row.format) for row in BACKENDS.values() if not row.has_runtime)


def _add_bars(parent: Element, title: str, values: Sequence[tuple[str, float]], digits: int) -> None:
    """Add a plot of horizontal bars from 0 to the largest value, or to 1 for shares."""
    figure = SubElement(parent, "figure")
    _add(figure, "figcaption", title)
    labels = 10 + _LETTER_WIDTH * max(len(name) for name, _ in values)
    width, height = labels + _BAR_WIDTH + _VALUE_WIDTH, _BAR_HEIGHT * len(values)
    words = ", ".join(f"{name} {value:.{digits}f}" for name, value in values)
    svg = SubElement(
        figure, "svg", {"viewBox": f"0 0 {width:.1f} {height}", "role": "img", "aria-label": f"{title}: {words}"}
    )
    most = max(1.0, *(value for _, value in values)) if digits == 1 else 1.0
    for index, (name, value) in enumerate(values):
        top = index * _BAR_HEIGHT
        length = max(0.0, min(1.0, value / most)) * _BAR_WIDTH
        baseline = str(top + _BAR_HEIGHT * 0.68)
        _add(svg, "text", name, x=f"{labels - 6:.1f}", y=baseline, text_anchor="end")
        box = {"x": f"{labels:.1f}", "y": str(top + 4), "width": f"{length:.1f}", "height": str(_BAR_HEIGHT - 8)}
        SubElement(svg, "rect", {"class": "bar", **box})
        _add(svg, "text", f"{value:.{digits}f}", x=f"{labels + length + 6:.1f}", y=baseline)


def _add_classes(parent: Element, targets: Sequence[Target]) -> None:
    """Add the accuracy of the original and of each file by class; the classes that lose most in any file come first."""
    measured = [target for target in targets if target.classes]
    if not measured:
        return
    losses: dict[str, float] = {}
    for target in measured:
        for name, (before, after) in target.classes.items():
            losses[name] = max(losses.get(name, -1.0), before - after)
    shown = sorted(losses, key=lambda name: -losses[name])[:SHOWN_CLASSES]
    section = SubElement(parent, "section")
    _add(section, "h2", "Classes")
    hidden = f" {len(losses) - len(shown)} others lose less." if len(losses) > len(shown) else ""
    words = "Accuracy by class, and in parentheses the difference to the original. The largest loss comes first."
    _add(section, "p", f"{words}{hidden}")
    originals = {name: before for target in reversed(measured) for name, (before, _) in target.classes.items()}
    rows = []
    for name in shown:
        numbers = [target.classes.get(name) for target in measured]
        cells = [f"{both[1]:.4f} ({both[1] - both[0]:+.4f})" if both else "-" for both in numbers]
        rows.append((name, f"{originals[name]:.4f}", *cells))
    _add_rows(section, ("Class", "Original", *(target.published.target for target in measured)), rows)


def _add_target(parent: Element, target: Target) -> None:
    one, section = target.published, SubElement(parent, "section")
    _add(section, "h2", one.target)
    proof = one.verification
    if one.artifact is None:
        _add(section, "p", " ".join(filter(None, (one.state, one.message))))
    if proof is None:
        return
    absent = f"not measured: {proof.fidelity_absent}" if proof.fidelity_absent else "not in this report"
    _add(section, "p", f"Fidelity {proof.fidelity or absent}.")
    if one.accuracy:
        _add(section, "p", f"Accuracy {one.accuracy.describe()}.")
    _add_quantization(section, target)
    for line in (*(f"Assumed: {phrase}." for phrase in proof.assumptions), *(f"Warning: {w}." for w in proof.warnings)):
        _add(section, "p", line)
    if target.samples:
        caption = "Images on which the answers differ most, the largest difference first. "
        _add(section, "p", f"{caption}Solid: both give the answer. Dashed: the other side does not.")
    for sample in target.samples:
        pair = SubElement(section, "div", {"class": "pair"})
        _add_side(pair, sample, ("original", "missed", sample.model), target.class_names)
        _add_side(pair, sample, (one.target, "invented", sample.file), target.class_names)
    for language, program in target.programs.items():
        details = SubElement(section, "details")
        _add(details, "summary", f"A program that opens the file in {language}")
        _add(SubElement(details, "pre"), "code", program)
    if one.artifact:
        _add(section, "p", f"{one.artifact.uri} (SHA-256 {one.artifact.sha256})", class_="file")


def _add_quantization(parent: Element, target: Target) -> None:
    """Add the rungs that were tried, and the layers in float with what each would cost in 8 bits."""
    made = target.published.quantization
    if made and not made.is_plain:
        titles = ("Rung", "Layers in float", "Drop", "Fidelity", "Agreement", "Size / FP32", "Seconds")
        rows = [
            (
                rung.rung,
                str(rung.float_layers),
                *(found or "-" for found in (rung.drop, rung.fidelity, rung.agreement)),
                rung.size_ratio,
                str(rung.seconds),
            )
            for rung in made.rungs
        ]
        _add(parent, "p", f"Files that were tried, in their order{made.stopped and f'; {made.stopped}'}:")
        _add_rows(parent, titles, rows)
    if target.float_layers:
        _add(parent, "p", "Layers that stay in float, because they cause most of the noise of 8-bit rounding:")
        shares = [f"{share:.1%}" for share in target.float_layer_shares] or ["-"] * len(target.float_layers)
        _add_rows(parent, ("Layer", "Share of the noise"), list(zip(target.float_layers, shares, strict=False)))


def _add_side(parent: Element, sample: Sample, side: tuple[str, str, Sequence[Answer]], names: Sequence[str]) -> None:
    """Add an image with the answers of one side: its title, the word for what the other side lacks, and its answers."""
    (height, width), (title, alone, answers) = sample.size, side
    figure = SubElement(parent, "figure")
    shown = [_describe(answer, alone, names) for answer in answers]
    listing = ", ".join(shown) or "no answer"
    label = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": f"{title}: {listing}"}
    svg = SubElement(figure, "svg", label)
    size = {"width": str(width), "height": str(height)}
    SubElement(svg, "image", {"href": f"data:image/jpeg;base64,{sample.image}", **size})
    for index, answer in enumerate(answers):
        _draw(svg, answer, _class_name(answer.label, names), (height, width), index)
    caption = SubElement(figure, "figcaption")
    _add(caption, "strong", title)
    caption[-1].tail = f": {listing}"


def _describe(answer: Answer, alone: str, names: Sequence[str]) -> str:
    name = f"{_class_name(answer.label, names)} {answer.score:.2f}"
    return name if answer.same else f"{alone} {name}"


def _class_name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else f"class {label}"


def _draw(svg: Element, answer: Answer, name: str, size: tuple[int, int], index: int) -> None:
    height, width = size
    unit = max(size) / 160
    kind = f"hue{answer.label % 6}" if answer.same else f"hue{answer.label % 6} alone"
    if answer.runs:
        path = " ".join(_runs(answer.runs, height / GRID, width / GRID))
        SubElement(svg, "path", {"class": f"region {kind}", "d": path})
    for x, y in zip(answer.keypoints[::2], answer.keypoints[1::2], strict=False):
        SubElement(
            svg, "circle", {"class": f"point {kind}", "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{2 * unit:.1f}"}
        )
    if len(answer.corners) == 8:
        corners = list(zip(answer.corners[::2], answer.corners[1::2], strict=True))
        outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        SubElement(svg, "polygon", {"class": f"box {kind}", "points": outline, "stroke-width": f"{1.5 * unit:.2f}"})
        left, top = (min(values) for values in zip(*corners, strict=True))
        words, at = f"{name} {answer.score:.2f}", (max(0, left), max(top - 1.5 * unit, 7 * unit))
    elif len(answer.box) == 4:
        left, top, right, bottom = answer.box
        place = {"x": f"{left:.1f}", "y": f"{top:.1f}"}
        sides = {"width": f"{max(0, right - left):.1f}", "height": f"{max(0, bottom - top):.1f}"}
        SubElement(svg, "rect", {"class": f"box {kind}", **place, **sides, "stroke-width": f"{1.5 * unit:.2f}"})
        words, at = f"{name} {answer.score:.2f}", (left, max(top - 1.5 * unit, 7 * unit))
    elif answer.runs:
        words, at = name, _middle(answer.runs, height / GRID, width / GRID)
    else:
        words, at = f"{name} {answer.score:.2f}", (2 * unit, (index + 1) * 9 * unit)
    text = _add(svg, "text", words if answer.same else f"✗ {words}", x=f"{at[0]:.1f}", y=f"{at[1]:.1f}", class_="mark")
    text.set("font-size", f"{7 * unit:.1f}")


def _runs(runs: Sequence[int], height: float, width: float) -> Iterable[str]:
    """Return the cells of a mask as rectangles of an SVG path, for cells of this height and width."""
    for row, column, length in zip(runs[::3], runs[1::3], runs[2::3], strict=False):
        yield f"M{column * width:.1f} {row * height:.1f}h{length * width:.1f}v{height:.1f}h{-length * width:.1f}z"


def _middle(runs: Sequence[int], height: float, width: float) -> tuple[float, float]:
    """Return the start of the longest run, where a name has the most room."""
    row, column, length = max(zip(runs[::3], runs[1::3], runs[2::3], strict=False), key=lambda run: run[2])
    return (column + length / 4) * width, (row + 1) * height

"""The tables in LaTeX, to be put into a paper: booktabs, numbers to the right, every word escaped."""

from collections.abc import Iterable

from tasks.bench.plain import visible
from tasks.bench.report.sheet import Column, Figure, Sheet

HEAD = "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.\n"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # which a row's end takes for its argument
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "·": r"\textperiodcentered{}",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{REPLACEMENT CHARACTER}": "?",
}


def document(sheets: Iterable[Sheet]) -> str:
    """All tables, each a float of its own."""
    return HEAD + "\n" + "\n".join(_float(sheet) for sheet in sheets)


def escaped(words: str) -> str:
    """Words that are nothing but words in LaTeX; letters that its fonts may lack stay as they are."""
    return "".join(SPECIAL.get(letter, letter) for letter in visible(words))


def _float(sheet: Sheet) -> str:
    where = f" {escaped(sheet.where)}." if sheet.where else ""
    notes = " ".join(escaped(note) for note in sheet.notes)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{\textbf{{{escaped(sheet.title)}.}}{where} {notes}}}",
        rf"\label{{tab:{sheet.key}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join(map(_kind, sheet.columns))}}}",
        r"\toprule",
        " & ".join(escaped(column.name) for column in sheet.columns) + r" \\",
        r"\midrule",
        *(" & ".join(map(_shown, line)) + r" \\" for line in sheet.lines),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _kind(column: Column) -> str:
    return "l" if column.words else "r"


def _shown(figure: Figure) -> str:
    words = escaped(figure.text) + (rf"\textsuperscript{{{figure.mark}}}" if figure.mark else "")
    return rf"\textbf{{{words}}}" if figure.strong else words

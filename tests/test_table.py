"""One table in every format: what is read back is what was written, whatever the cells say."""

import csv
import io
import json
import re
from functools import partial
from html.parser import HTMLParser

import pytest

from senet.page import part
from senet.table import Column, Table, as_csv, as_json

NASTY = ["plain", "a|b", "<b>x</b> & 'c' \"d\"", r"back\slash", "_x_ in_word *y* `z` ~w~", "50 % of $5 #1 {2}^3",
         "two\nlines", "猫 ±", "&amp;", "[start", "*"]  # fmt: skip
COLUMNS = [
    Column("name", lambda word: word, words=True),
    Column(
        "length [unit]", lambda word: str(len(word)), lambda word: f"[{len(word)}]" if word != "*" else ""
    ),
    Column("none", lambda word: "", brief=False),
    Column("theirs", lambda word: f"{len(word) / 2:.1f}", group="paper", style=lambda word: "good"),
    Column("source", lambda word: "T1", words=True, group="paper"),
]
TABLE = Table(COLUMNS, NASTY)
html = partial(part, "parts.html", "table")


def test_text_is_aligned_and_brief():
    table = Table(COLUMNS, ["a", "猫猫猫"])
    assert table.text(rule=True, empty="-") == "\n".join([
        "                       |  paper",
        "name    length [unit]  |  theirs  source",
        "----------------------------------------",
        "a               1 [1]  |     0.5  T1",
        "猫猫猫          3 [3]  |     1.5  T1",
    ])  # fmt: skip
    assert Table(COLUMNS[:2], ["b"]).text() == "name  length [unit]\nb             1 [1]"
    assert Table([COLUMNS[0], Column("x", lambda word: "")], ["b"]).text(empty="-").endswith("b     -")
    assert Table(COLUMNS[:2], []).text() == "name  length [unit]"
    assert len(TABLE.text().splitlines()) == len(NASTY) + 2
    assert table.text(width=32).splitlines()[0] == "                       |  paper"
    assert table.text(width=31) == Table(COLUMNS[:2], ["a", "猫猫猫"]).text()
    assert table.text(width=1) == "name\na\n猫猫猫"


def test_markdown_keeps_every_word():
    title, kinds, *lines = TABLE.markdown().splitlines()
    assert title == "| name | length [unit] | none | paper: theirs | paper: source |"
    assert kinds == "| :-- | --: | --: | --: | :-- |"
    for word, line in zip(NASTY, lines, strict=True):
        cell = re.split(r"(?<!\\) \| ", line.removeprefix("| "))[0]
        assert re.sub(r"\\([^a-zA-Z ])", r"\1", cell) == word.replace("\n", " ")
        assert not re.search(r"(?<!\\)(<[a-zA-Z/]|\*|`|\b_)", line)


def test_latex_is_balanced_and_keeps_every_line():
    lines = TABLE.latex().splitlines()
    assert lines[:5] == [
        r"\begin{tabular}{lrrrl}", r"\toprule", r"\multicolumn{3}{c}{} & \multicolumn{2}{c}{paper} \\",
        r"\cmidrule(lr){1-3} \cmidrule(lr){4-5}", r"name & length [unit] & none & theirs & source \\",
    ]  # fmt: skip
    body = lines[6:-2]
    assert len(body) == len(NASTY)
    for line in body:
        assert line.count(" & ") == 4
        assert not line.startswith(("[", "*"))
        assert not re.search(r"(?<!\\)[%#_]", line)
        bare = re.sub(r"\\[{}]", "", line)
        assert bare.count("{") == bare.count("}")
    assert r"two lines" in body[6]
    assert Table(COLUMNS[:1], ["x"]).latex().splitlines()[2] == r"name \\"


class Cells(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.styles: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.lines.append([])
            self.styles.append([])
        elif tag in ("th", "td"):
            self.lines[-1].append("")
            self.styles[-1].append(dict(attributes).get("class", ""))

    def handle_data(self, data):
        if data.strip():  # what stands between two cells is a line break
            self.lines[-1][-1] += data


def test_html_is_read_back():
    page = html(TABLE, "a & b", "points", {"": "ours", "paper": "paper: it"})
    assert page.startswith('<div class="scroll" tabindex="0" role="region" aria-label="a &amp; b">')
    cells = Cells(page)
    assert cells.lines[0] == ["ours", "paper: it"]
    assert cells.styles[0] == ["", "paper edge"]
    assert cells.styles[1] == ["text", "", "", "paper edge", "text paper"]
    assert [line[0] for line in cells.lines[2:]] == [word.replace("\n", " ") for word in NASTY]
    assert cells.lines[2][1:] == ["5[5]", "", "2.5", "T1"]
    assert cells.styles[2] == ["text", "", "", "paper edge good", "text paper"]
    assert 'class="groups"' not in html(Table(COLUMNS[:2], NASTY), "x", "")


def test_a_share_is_a_bar_behind_its_cell():
    half = Column("x", lambda share: "y", style=lambda share: "heat", share=lambda share: share)
    text = html(Table([half, half], [0.5, None]), "t", "")
    assert text.count('style="--share: 50.0%"') == 1
    assert 'class="heat share"' in text


@pytest.mark.parametrize("records", [[{"a": 1.5, "b": 'x,"y"\nz'}, {"a": None, "b": ""}]])
def test_records_are_read_back(records):
    read = list(csv.DictReader(io.StringIO(as_csv(records))))
    assert read == [{"a": "1.5", "b": 'x,"y"\nz'}, {"a": "", "b": ""}]
    assert json.loads(as_json(records)) == records
    assert as_json([]) == "[]"
    assert as_csv([]) == ""

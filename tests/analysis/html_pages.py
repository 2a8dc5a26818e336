"""A page as a browser reads it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Checks that tags nest, and collects the cells of tables and what the page would load."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if values.get("id") else []
        self.loads += [v for k, v in values.items() if k in ("src", "href") and not str(v).startswith("#")]
        assert tag not in ("script", "link")
        if tag not in self.VOID:
            self.stack.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if any(tag in ("td", "th") for tag in self.stack):
            cell = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = f"{cell} {data}".strip()

"""Braintree's XML: dashed names, and a `type` on every node that is no text."""

import re
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from payments.sandbox.wire import Doc

HIDDEN = frozenset({"object", "created"})  # the books' own, besides what begins with an underscore
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def render(name: str, value: Any) -> str:
    """One element; lists become typed arrays, None becomes nil."""
    tag = name.replace("_", "-")
    match value:
        case None:
            return f'<{tag} nil="true"/>'
        case bool():
            return f'<{tag} type="boolean">{str(value).lower()}</{tag}>'
        case int():
            return f'<{tag} type="integer">{value}</{tag}>'
        case list():
            items = "".join(render("item", item) for item in value)
            return f'<{tag} type="array">{items}</{tag}>'
        case dict():
            shown = {key: member for key, member in value.items() if key not in HIDDEN and key[0] != "_"}
            return f"<{tag}>{''.join(render(key, member) for key, member in shown.items())}</{tag}>"
    text = str(value)
    kind = "datetime" if _DATETIME.fullmatch(text) else "date" if _DATE.fullmatch(text) else ""
    attribute = f' type="{kind}"' if kind else ""
    return f"<{tag}{attribute}>{escape(text)}</{tag}>"


def render_document(name: str, value: Any) -> str:
    return '<?xml version="1.0" encoding="UTF-8"?>' + render(name, value)


def render_collection(name: str, item: str, values: list[Doc]) -> str:
    """A page of a search: the items stand beside each other, under their own name."""
    tag = name.replace("_", "-")
    items = "".join(render(item, value) for value in values)
    page = render("current_page_number", 1)
    return f'<?xml version="1.0" encoding="UTF-8"?><{tag} type="collection">{page}{items}</{tag}>'


def parse(text: str) -> Doc:
    """The request as `{root: ...}`, with underscored names. Raises `ValueError` for what is not XML."""
    if not text.strip():
        return {}
    if "<!" in text:
        raise ValueError("no declarations")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - a request has no declarations, so no entities
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    return {_name(root): _read(root)}


def _name(node: ElementTree.Element) -> str:
    return node.tag.replace("-", "_")


def _read(node: ElementTree.Element) -> Any:
    kind = node.get("type")
    if kind == "array":
        return [_read(child) for child in node]
    if len(node):
        return {_name(child): _read(child) for child in node}
    text = node.text or ""
    if kind == "boolean":
        return text == "true"
    return int(text) if kind == "integer" else text

"""Texts as a document: Adyen takes no words in a dispute, only files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_WIDTH, _LINES = 88, 56  # characters and lines of a page in ten-point Courier


def write_pdf(texts: Mapping[str, str]) -> bytes:
    """A plain PDF of the texts under their names, by the smallest part of the format (ISO 32000) that does."""
    lines = list(set_lines(texts))
    pages = [lines[start : start + _LINES] for start in range(0, len(lines), _LINES)]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
    ]
    for number, page in enumerate(pages):
        content = write_page(page)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
            + f" /Contents {5 + 2 * number} 0 R >>".encode()
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream")
    return join_objects(objects)


def set_lines(texts: Mapping[str, str]) -> Iterator[str]:
    for kind, text in texts.items():
        yield kind.replace("_", " ").upper()
        for paragraph in text.splitlines():
            yield from re.findall(rf".{{1,{_WIDTH}}}(?:\s+|\Z)|.{{{_WIDTH}}}", paragraph) or [""]
        yield ""


def write_page(lines: Sequence[str]) -> bytes:
    shown = [re.sub(rb"([\\()])", rb"\\\1", line.rstrip().encode("cp1252", "replace")) for line in lines]
    return (
        b"BT /F1 10 Tf 13 TL 50 740 Td\n" + b"\n".join(b"(" + line + b") Tj T*" for line in shown) + b"\nET"
    )


def join_objects(objects: Sequence[bytes]) -> bytes:
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    tail = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n"
    return body + tail.encode() + f"{len(body)}\n%%EOF\n".encode()

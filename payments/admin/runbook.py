"""The on-call guide in the admin: one section a page, its Markdown turned into escaped HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from payments import runbook

_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\(([^)\s]+)\)")


def show_runbook(request: HttpRequest, slug: str) -> TemplateResponse:
    """A section of the guide, with links to the others. Raises `Http404` for one that is not there."""
    if not request.user.has_perm("payments.view_sagarun"):
        raise PermissionDenied
    try:
        sections = runbook.read_sections()
    except OSError as error:
        raise Http404("The on-call guide is not installed beside the code.") from error
    if slug not in sections:
        raise Http404(f"The on-call guide has no section {slug}.")
    heading, text = sections[slug]
    contents = [(reverse("runbook", args=[name]), title) for name, (title, _) in sections.items()]
    context = {
        **admin.site.each_context(request),
        "title": heading,
        "body": render_markdown(text),
        "contents": contents,
        "here": request.path,
    }
    request.current_app = admin.site.name
    return TemplateResponse(request, "admin/payments/sagarun/runbook.html", context)


def render_markdown(text: str) -> SafeString:
    """The Markdown that our guide uses: paragraphs, lists, tables, code, headings and what is inside a line."""
    blocks = _split_blocks(text.splitlines())
    return mark_safe("\n".join(_render_block(block) for block in blocks))  # noqa: S308 - each piece is escaped


def _split_blocks(lines: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    is_code = False
    for line in lines:
        if line.startswith("```"):
            is_code = not is_code
        if not is_code and (not line.strip() or line.startswith(("#", "```"))):
            if line.startswith("```"):
                block.append(line)
            if block:
                yield block
            block = []
            if line.startswith("#"):
                yield [line]
            continue
        block.append(line)
    if block:
        yield block


def _render_block(lines: list[str]) -> str:
    first = lines[0]
    if first.startswith("```"):
        return f'<pre class="bo-json">{escape(chr(10).join(lines[1:-1]))}</pre>'
    if first.startswith("#"):
        return f"<h3>{_render_line(first.lstrip('#').strip())}</h3>"
    if first.startswith("|"):
        return _render_table(lines)
    if re.match(r"(\d+\.|-) ", first):
        return _render_list(lines)
    return f"<p>{_render_line(' '.join(lines))}</p>"


def _render_list(lines: list[str]) -> str:
    items = re.split(r"^(?:\d+\.|-) ", "\n".join(lines), flags=re.MULTILINE)[1:]
    name = "ol" if lines[0][0].isdigit() else "ul"
    rendered = "".join(f"<li>{_render_line(' '.join(item.split()))}</li>" for item in items)
    return f"<{name}>{rendered}</{name}>"


def _render_table(lines: list[str]) -> str:
    head, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    titles = "".join(f'<th scope="col">{_render_line(cell)}</th>' for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{_render_line(cell)}</td>' for cell in row)}</tr>" for row in rows[1:]
    )
    table = f'<table class="bo-table"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="bo-scroll">{table}</div>'


def _render_line(text: str) -> str:
    """Code, bold, emphasis; a link to another page of the guide stays its words."""
    found: list[str] = []
    end = 0
    for match in _INLINE.finditer(text):
        found.append(escape(text[end : match.start()]))
        code, bold, emphasis, words, _ = match.groups()
        name = "code" if code else "strong" if bold else "em" if emphasis else "span"
        found.append(f"<{name}>{escape(code or bold or emphasis or words)}</{name}>")
        end = match.end()
    found.append(escape(text[end:]))
    return "".join(found)

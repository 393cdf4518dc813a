"""Tables and sentences as HTML, everything escaped."""

from __future__ import annotations

import html

from gclip.text.table import TextTable


def escaped(text: object) -> str:
    """A text for HTML, between tags or in an attribute."""
    return html.escape(str(text), quote=True)


def table_html(table: TextTable) -> str:
    """A table with every column and every row; sections are left out.

    Args:
        table: its cells are text.

    Example:
        >>> from gclip.text.table import Column
        >>> table = TextTable(columns=[Column(heading="a<b")])
        >>> table.add("1 & 2")
        >>> "<th>a&lt;b</th>" in table_html(table), "<td>1 &amp; 2</td>" in table_html(table)
        (True, True)
    """
    head = "".join(f"<th>{escaped(column.heading)}</th>" for column in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>"
        for row in table.without_sections()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

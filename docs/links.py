"""Have links lead to where pages are on the site, whose home page is README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_README = Path(__file__).parent.parent / "README.md"


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Show README at home; turn links to it, and to what is not on the site."""
    home = re.sub(r"[^/]+/", "../", re.sub(r"[^/]+$", "", page.file.src_uri)) + "index.md"
    if page.file.src_uri == "index.md":
        markdown = _README.read_text(encoding="utf-8")
        markdown = re.sub(r"\]\(docs/README\.md\)", "](index.md)", markdown)
        markdown = re.sub(r"\]\(docs/", "](", markdown)
        markdown = re.sub(r"\[([A-Z]+\.md)\]\(\1\)", r"`\1`", markdown)
    markdown = re.sub(r"\]\((?:\.\./)+README\.md(#[^)]*)?\)", rf"]({home}\1)", markdown)
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+([^)]+)\)", _named_if_outside, markdown)


def _named_if_outside(link: re.Match[str]) -> str:
    """Name the file where a link leads to one of the project that is not on the site."""
    text, path = link[1], link[2]
    is_page = path.endswith("index.md") or path.partition("/")[0] in ("how-to", "reference")
    return link[0] if is_page or "/" not in path else f"{text} (`{path}`)"

"""Hooks of mkdocs: pages that are files of the repository, and links to what is not on the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
_PAGE = re.compile(r"^<!-- page (\S+) -->\s*$")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
# Files of the repository that are pages of the site.
_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The text of a page for the site: links into the rest of the repository become plain text."""
    source = DOCS / page.file.src_path
    found = _PAGE.match(markdown)
    if found:
        source = (DOCS / found[1]).resolve()
        markdown = source.read_text(encoding="utf-8")
    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    blocks[::2] = [_LINK.sub(lambda match: _linked(match, source.parent), b) for b in blocks[::2]]
    return "".join(blocks)


def _linked(match: re.Match[str], folder: Path) -> str:
    """A link as the site has it, or its text alone."""
    picture, text, target = match.groups()
    path, hash_sign, heading = target.partition("#")
    if not path or re.match(r"\w+:", target):
        return match[0]
    file = (folder / path).resolve()
    if file.parent == DOCS.parent and file.name in _PAGES:
        file = DOCS / _PAGES[file.name]
    if file.parent != DOCS:
        return str(text)
    return f"{picture}[{text}]({file.name}{hash_sign}{heading})"

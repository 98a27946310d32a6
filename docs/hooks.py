"""For MkDocs: pages beside README are pages of the site too, and links to other files of the repository go nowhere."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Pages of the repository, by the names that they have on the site.
PAGES = {"benchmarks.md": "BENCHMARKS.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
PAGES |= {"security.md": "SECURITY.md"}
_LINK = re.compile(r"\[([^]]*)\]\((?:\.\./)?([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add those pages."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Links between the two kinds of pages, as they are on the site; a file that is no page is named and not linked."""
    return _LINK.sub(lambda link: _on_site(link, files), markdown)


def _on_site(link: re.Match[str], files: Files) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    if target.startswith(("http:", "https:", "mailto:")):
        return link[0]
    own = {source: name for name, source in PAGES.items()}
    name = own.get(target) or target.removeprefix("docs/")
    if files.get_file_from_path(name) is not None:
        return f"[{text}]({name}{anchor})"
    return text

"""Pages of the site that lie elsewhere in the repository, and one of every public name.

A hook of MkDocs: the files stay where readers of the repository look for them, and links between
pages are written for the repository; here they are turned into the site's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "strategies/README.md": "strategies.md",
    "studies/PERFORMANCE.md": "performance.md",
    "studies/records/README.md": "records.md",
}

SECTIONS = {
    "Strategies": (
        "register Strategy Transform Seen Elements Memory Limit Band Scope Side RuleName tunable "
        "setting fields_of FieldInfo names get create parse chain Chain load_plugins simulate "
        "code_digest Schedule linear cosine exponential"
    ),
    "In your loop": (
        "Clipper attach ClipHandle ClipReport Record ClipSummary LayerNorms LayerRecord "
        "per_sample_gradients doctor Doctor Findings Finding Survey Suggestions Suggestion Rate"
    ),
    "Problems and models": (
        "register_problem Problem Supervised RunState Metric register_model build_model"
    ),
    "Comparisons": "compare Comparison UsageError",
}


def reference(names: list[str]) -> str:
    """The page of all public names; one that belongs to no section above stands under "More"."""
    modules = {"figures", "results", "Attached"}  # modules, and an earlier name
    placed = {name for each in SECTIONS.values() for name in each.split()}
    rest = [name for name in names if name not in placed | modules]
    sections = {**SECTIONS, **({"More": " ".join(rest)} if rest else {})}
    text = "# Reference\n\nWhat `import gclip` gives.\n"
    for title, members in sections.items():
        text += f"\n## {title}\n\n" + "".join(f"::: gclip.{name}\n\n" for name in members.split())
    return text


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere, the images that they show, and the reference."""
    import gclip

    for source, target in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=text))
    for image in (ROOT / "studies" / "records").glob("*.png"):
        files.append(File.generated(config, image.name, abs_src_path=str(image)))
    files.append(File.generated(config, "reference.md", content=reference(list(gclip.__all__))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links that hold in the repository into those of the site."""
    source = {target: path for path, target in ELSEWHERE.items()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )
    folder = (ROOT / source).parent

    def turned(match: re.Match[str]) -> str:
        text, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        path = (folder / target).resolve()
        if not path.exists():
            return match.group(0)
        place = path.relative_to(ROOT).as_posix()
        if place in ELSEWHERE:
            return f"[{text}]({ELSEWHERE[place]}{anchor})"
        if place.startswith("docs/"):
            return f"[{text}]({place.removeprefix('docs/')}{anchor})"
        if path.suffix == ".png":
            return f"[{text}]({path.name})"
        return f"`{place}`" if text.strip("`") == place else f"{text} (`{place}`)"

    return re.sub(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)]*)?\)", turned, markdown)

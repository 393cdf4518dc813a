"""What does a name on the command line mean: a strategy, a problem or a model?"""

from __future__ import annotations

from gclip.describe.facts import KINDS
from gclip.errors import UsageError, unknown


def meant(text: str) -> tuple[str, str]:
    """The kind of thing that a name or a spelling means, and that text without the kind.

    ``strategy:x``, ``problem:x`` and ``model:x`` say the kind.

    Raises:
        UsageError: nothing has this name, or things of several kinds have it.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        return kind, rest.strip()
    name = text.partition("(")[0].partition(":")[0].strip()
    if name in ("chain", "players"):  # of strategies
        return "strategy", text
    kinds = [kind for kind in KINDS if _has(kind, name)]
    if not kinds:
        known = [each for kind in KINDS for each in names_of(kind)]
        unknown("strategy, problem or model", name, dict.fromkeys(known))
    if len(kinds) > 1:
        choices = " or ".join(f"{kind}:{text}" for kind in kinds)
        raise UsageError(f"{name} is a {' and a '.join(kinds)}; say which: {choices}")
    return kinds[0], text


def names_of(kind: str) -> tuple[str, ...]:
    """All that is registered of a kind."""
    import gclip
    from gclip.training import models
    from gclip.training.problem_registry import PROBLEMS

    return {"strategy": gclip.names, "problem": PROBLEMS.names, "model": models.names}[kind]()


def chosen_of(what: list[str]) -> list[tuple[str, str]]:
    """What a list of plugins and names means: the named, else all that the plugins register.

    Raises:
        UsageError: a plugin that does not load, or a name that means nothing or too much.
    """
    from gclip.core.plugins import load_by_kind

    plugins = [each for each in what if _is_plugin(each)]
    registered: list[tuple[str, str]] = []
    for plugin in plugins:
        found = load_by_kind(plugin)
        registered += [(kind, name) for kind in KINDS for name in found.get(kind, ())]
    named = [_canonical(*meant(each)) for each in what if each not in plugins]
    return list(dict.fromkeys(named or registered))


def _has(kind: str, name: str) -> bool:
    if kind == "strategy":
        import gclip

        try:
            gclip.get(name)
        except UsageError:
            return False
        return True
    return name in names_of(kind)


def _canonical(kind: str, text: str) -> tuple[str, str]:
    """The kind, and the name that what is checked goes by."""
    import gclip
    from gclip.training import models
    from gclip.training.tasks import problem_of

    if kind == "strategy":
        return kind, gclip.get(text).name
    return kind, str(problem_of(text)) if kind == "problem" else models.canonical(text)


def _is_plugin(text: str) -> bool:
    """Names have neither a dot nor a slash before their fields; files and modules inside packages
    do."""
    name = text.partition("(")[0]
    return any(mark in name for mark in "./\\")

"""The same run made in another process, which shares nothing but the source."""

from __future__ import annotations

from collections.abc import Iterator

from gclip.training.contract.bits import bits_of_run, changed
from gclip.training.contract.other_process import answer_of, home_of
from gclip.training.contract.problem_subject import CONTRACT, ProblemSubject


@CONTRACT.promise("another process, as a worker is, gives the same bits")
def another_process(subject: ProblemSubject) -> Iterator[str]:
    """It loads the file or module that registers the problem, and the data."""
    request = {
        "homes": [home_of(subject.cls)],
        "config": subject.config().to_json(),
        "folder": None if subject.folder is None else str(subject.folder),
    }
    answer = answer_of(request)
    here = subject.run()
    for step, (a, b) in enumerate(zip(answer["losses"], here.steps["loss"].tolist(), strict=False)):
        if a != b and not (a is None or b != b):
            yield f"step {step}: the loss is {a:.9g} in another process, but {b:.9g} here"
            return
    for path in changed(bits_of_run(here), answer["bits"]):
        yield f"{path} is another in another process"

"""The golden files under each policy of code memory, and what the kernel says of our pages.

Each policy is a child process, which reads /proc/self/maps after every install: no mapping is ever
writable and executable, and under the sealed policy none of ours is ever writable.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from test_golden import ERRORS, FILES, golden

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="needs Linux on x86-64"
)

PROGRAM = """
import json, pathlib, sys
import exprjit
from exprjit.runtime import memory, pages

PAGE = 4096
sealed = memory.policy()[0] == "sealed"
#: The pages that ever held code of ours.
ours = set()
looks = 0

def look():
    global looks
    looks += 1
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        span, permissions, _ = line.split(maxsplit=2)
        assert not ("w" in permissions and "x" in permissions), line
        first, last = (int(end, 16) for end in span.split("-"))
        if "memfd:exprjit" in line or any(first <= page < last for page in ours):
            assert "w" not in permissions or not sealed, line

install = memory.install

def watched(code):
    made = install(code)
    start = made.address // PAGE * PAGE
    ours.update(range(start, made.address + made.size, PAGE))
    look()
    return made

memory.install = watched

def answer(f, arguments):
    try:
        return f(*arguments)
    except exprjit.ExprError as error:
        return type(error).__name__

wrong = []
engines = set()
kept = []
for number, (source, options, runs) in enumerate(json.load(sys.stdin)):
    functions = [
        exprjit.compile(source, **options, **how)
        for how in ({}, {"verify": True}, {"lazy": True})
    ]
    for arguments, wanted in runs:
        for f in functions:
            for _ in range(2):
                got = answer(f, arguments)
                if got != wanted:
                    wrong.append((source, options, arguments, wanted, got))
    engines.update((f.engine, f.why_not_jit) for f in functions)
    if functions[0].engine == "jit":
        functions[0].checked_address
    kept += functions
    if number % 20 == 0:
        kept.clear()
        del f, functions
        memory.collect()
        look()
print(json.dumps([memory.policy()[0], list(engines), wrong, looks, len(ours)]))
"""


def corpus() -> list[tuple[str, dict[str, Any], list[Any]]]:
    """(source, options, runs) of every golden file; a run is its arguments and the answer."""
    files = []
    for path in FILES:
        file = golden(path.stem)
        runs = [(run.arguments, ERRORS.get(run.answer, run.answer)) for run in file.runs]
        files.append((file.source, file.options, runs))
    return files


@pytest.mark.parametrize("policy", ["sealed", "mprotect", "none"])
def test_the_corpus_under_each_policy(policy: str, child: Callable[..., str]) -> None:
    files = corpus()
    assert len(files) > 40
    out = child(PROGRAM, input=json.dumps(files), EXPRJIT_MEMORY=policy)
    name, engines, wrong, looks, pages = json.loads(out)
    if policy != "none" and name == "none":
        pytest.skip(f"this system does not allow it: {engines}")
    assert wrong == []
    assert name == policy
    if policy == "none":
        assert engines == [["interpreter", "no executable memory: EXPRJIT_MEMORY=none"]]
        assert pages == 0
    else:
        assert engines == [["jit", None]]
        assert looks > 4 * len(files)
        assert 3 < pages < 100

"""`exprjit.check`: compare the engines on a formula, or on generated programs.

    >>> from exprjit import check
    >>> check.check("x // 7 * 7 + x %% 7").difference is None
    True

The command ``exprjit check`` is made of the same parts.
"""

from __future__ import annotations

from .tools.check import Difference, Report, check, check_generated, generated
from .tools.generate import strategy

__all__ = ["Difference", "Report", "check", "check_generated", "generated", "strategy"]

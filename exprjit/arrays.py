"""What a function can do with columns of many rows, one method for each kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .inspection import Inspection

#: The default of `errors`, which is known without comparing texts.
_RAISE: Final = "raise"


class ArrayMethods(Inspection):
    """The base of functions: the methods for arrays."""

    __slots__ = ()

    def _over(
        self,
        kernel: str,
        columns: tuple[Any, ...],
        named: Mapping[str, Any],
        where: Any,
        threads: Any,
        errors: Any,
        out: Any = None,
        dtype: Any = None,
    ) -> Any:
        """What the method called `kernel` gives."""
        body = self._body
        if not named and errors is _RAISE and threads is out is dtype is None:
            answer = body.over_plain(kernel, columns, where)
            if answer is not NotImplemented:
                return answer
        options = {"where": where, "threads": threads, "errors": errors, "out": out, "dtype": dtype}
        return body.over_arrays(kernel, columns, named, options)

    def map(
        self,
        /,
        *columns: Any,
        out: Any = None,
        dtype: Any = None,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """The value for each row.

        columns: for each parameter an array of integers (NumPy's of any shape, which broadcast;
            or a buffer with one dimension), or an int for all rows; by position or by name; or one
            dict or data frame, of which those columns are taken that are called like parameters.
            Parameters of `where` that the formula does not have come after its own.
            A column may be a Series of pandas or Polars, or an Arrow array. Then the result is of
            the library of the first such column (with the index of a pandas Series), and a row
            without a value in some column is dropped as by `where`: it has no result, and cannot
            fail or count. Rows are taken as they stand: Series have to have equal indexes.
        out: an array for the results, which is given back; it may overlap the columns.
        dtype: the integer type of the results, "int64" by default; that a result does not fit
            is an error.
        where: a formula, its text, or an array of truth values: only these rows are computed, and
            only they can fail. The others keep what `out` has; without `out` they are 0.
        threads: how many to use; by default as many as processors, if there are many rows.
        errors: "raise" raises the error of the first row that fails, with its number in `row`;
            "mask" gives a pair: the results, 0 in rows that fail, and an array that says which
            these are.

        Raises ExprTypeError for columns that hold no integers of up to 64 bits, ExprValueError for
        shapes that do not fit, and what a call raises. After an error the results before that row
        are there; with several threads later ones may be, too.
        """
        return self._over("map", columns, named, where, threads, errors, out, dtype)

    def mask(
        self,
        /,
        *columns: Any,
        out: Any = None,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """Whether the value is not 0, for each row: an array of bool (uint8 without NumPy).

        columns, where, threads, errors and what is raised are as of `map`; `out` can be
        such an array.
        """
        return self._over("mask", columns, named, where, threads, errors, out)

    def bitmap(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """As `mask`, packed: bit i of word i // 64 of an array of uint64 is row i, lowest first.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("bitmap", columns, named, where, threads, errors)

    def indices(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """The numbers of the rows whose value is not 0, ascending: an array of int64.

        columns, where, threads, errors and what is raised are as of `map` (rows are counted
        in the order of C).
        """
        return self._over("indices", columns, named, where, threads, errors)

    def count(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """In how many rows the value is not 0: an int.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("count", columns, named, where, threads, errors)

    def sum(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """The sum of the values, exact: an int of any size.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("sum", columns, named, where, threads, errors)

    def min(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """The least value: an int; ExprNoRowsError if there are no rows.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("min", columns, named, where, threads, errors)

    def max(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """The greatest value: an int; ExprNoRowsError if there are no rows.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("max", columns, named, where, threads, errors)

    def argmin(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """The first row with the least value: an int; ExprNoRowsError if there are no rows.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("argmin", columns, named, where, threads, errors)

    def argmax(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """The first row with the greatest value: an int; ExprNoRowsError if there are no rows.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("argmax", columns, named, where, threads, errors)

    def any(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """Whether the value is not 0 in some row; rows behind that are not looked at.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("any", columns, named, where, threads, errors)

    def all(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """Whether the value is not 0 in every row; rows behind one where it is are not looked at.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("all", columns, named, where, threads, errors)

    def first(
        self,
        /,
        *columns: Any,
        where: Any = None,
        threads: int | None = None,
        errors: str = "raise",
        **named: Any,
    ) -> Any:
        """The first row whose value is not 0: an int, or None; later rows are not looked at.

        columns, where, threads, errors and what is raised are as of `map`.
        """
        return self._over("first", columns, named, where, threads, errors)

"""The report in short, as HTML for the output of a notebook's cell; no library is needed for it.

summary(report.to_dict())                    "<div>...<table>..."
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from onnx_tropnnc.reporting.facts import file_name, size_rows

__all__ = ["summary"]


def summary(facts: Mapping[str, Any]) -> str:
    """Return the verdict, the sizes before and after, and how many groups became smaller."""
    rows = "".join(
        f"<tr><th scope='row'>{what}</th><td>{before}</td><td>{after}</td><td>{saved}</td></tr>"
        for what, before, after, saved in size_rows(facts)
    )
    groups = f"{len(facts['groups'])} of {len(facts['groups']) + len(facts['kept'])} channel groups became smaller."
    heading = "<tr><th></th><th scope='col'>before</th><th scope='col'>after</th><th scope='col'>saved</th></tr>"
    return (
        f"<div><p><strong>{escape(file_name(facts['model']))}</strong>: {escape(facts['verdict']['text'])}</p>"
        f"<table><thead>{heading}</thead><tbody>{rows}</tbody></table>"
        f"<p>{groups} Next: {escape(facts['verdict']['advice'])}</p></div>"
    )

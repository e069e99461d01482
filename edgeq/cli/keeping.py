"""Reports into a bundle, with the HTML page that shows them all."""

from __future__ import annotations

from collections.abc import Mapping

from edgeq.bundle.page import bundle_page
from edgeq.bundle.read import Bundle, add_page, add_report
from edgeq.cli.console import Console
from edgeq.report.jsonio import to_jsonable

__all__ = ["keep_reports"]


def keep_reports(bundle: Bundle | None, reports: Mapping[str, object], console: Console) -> Bundle | None:
    """The bundle with these reports and a new ``report.html``; None stays None.

    Raises:
        OutputError: the bundle's folder is not writable, or the disk is full.
    """
    if bundle is None:
        return None
    for name, data in reports.items():
        bundle = add_report(bundle, name, to_jsonable(data))
    bundle = add_page(bundle, bundle_page(bundle))
    if reports:
        console.note(
            f"kept in {bundle.folder}: {', '.join(f'reports/{name}.json' for name in reports)}, report.html"
        )
    return bundle

"""Curves as PNG, for whoever cannot show SVG: drawn by a library that nothing else needs."""

from __future__ import annotations

from functools import cache

_SCALE = 2.0  # dots a unit of the drawing
# The library knows no "sans-serif": one of these is on most systems
_FONTS = 'text { font-family: "DejaVu Sans", "Liberation Sans", "Noto Sans", Arial, Helvetica, sans-serif }'
_LETTER = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text y="9">{}</text></svg>'


@cache
def why_not() -> str | None:
    """Why there can be no PNG, with what to do about it; None if there can be."""
    try:
        import resvg_py as _  # noqa: F401
    except ImportError:
        return 'no PNG files are written without resvg: pip install "ixy[png]"'
    if png(_LETTER.format("m")) == png(_LETTER.format("")):
        return "no PNG files are written without a font: apt-get install fonts-dejavu-core"
    return None


def png(svg: str) -> bytes:
    """A drawing as a PNG file. To be called if `why_not` says nothing."""
    import resvg_py

    return resvg_py.svg_to_bytes(svg_string=svg, zoom=_SCALE, style_sheet=_FONTS)

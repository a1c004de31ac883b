"""Looking at what was made: pictures at fixed captions and seeds, and how far two pipelines are apart."""

from .gallery import Shot, difference, draw, pixels

__all__ = ["Shot", "difference", "draw", "pixels"]

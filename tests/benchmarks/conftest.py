"""The small server that the load generator is tested against."""

from tests.serving.conftest import conformance_base, exports, images, server

__all__ = ["conformance_base", "exports", "images", "server"]

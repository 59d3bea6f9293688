from tests.serving.conftest import models, server

__all__ = ["models", "server"]

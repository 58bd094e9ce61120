"""The Serve application: ``serve run serve.app:build bundle=RUN`` or ``serve deploy serve/config.yaml``."""

from cotray.stages.serving import build

__all__ = ["build"]

"""`python -m serving.server`: flags and files are checked before TensorFlow is imported."""

from __future__ import annotations

import sys

from regraft_core.runtime.errors import RegraftError
from serving.server.flags import parse_flags


def main(arguments: list[str]) -> int:
    """Serve with the given flags; return the exit code."""
    if "--help" in arguments or "-h" in arguments:
        arguments = ["--help"]
    try:
        options = parse_flags(arguments)
        from serving.server.config import (
            read_batching,
            read_metrics_path,
            read_model_configs,
            read_tls,
        )

        tls = read_tls(options.ssl_config_file)
        read_batching(options.batching_parameters_file)
        read_metrics_path(options.monitoring_config_file)
        configs = read_model_configs(options)
        options.recording.check_folder()
        skip_unused_packages()
        import asyncio

        from serving.server.app import serve

        asyncio.run(serve(options, configs, tls))
    except RegraftError as error:
        line = " ".join(str(error).split())
        print(f"serving: {line}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def skip_unused_packages() -> None:
    """Import TensorFlow without the packages that Keras also imports wherever they are installed.

    A server needs none of them, and they take a third of the time of the import.
    """
    for name in ("matplotlib", "pandas", "sklearn"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A run as a Dockerfile: its script, in an image with the recorded Python."""

from __future__ import annotations

import hashlib

from manifest.exports.scripts import script_text
from manifest.rebuilding import python_version
from manifest.recorded import Recorded
from manifest.rundir import RunDirectory


def dockerfile_text(recorded: Recorded, run: RunDirectory) -> str:
    """The Dockerfile; all that comes from the manifest stands in the script alone.

    Raises:
        NotReplayable: There is no script of this run.
    """
    script = script_text(recorded, run)
    version = python_version(recorded) or "3"
    # What ends the script is named by the script, which therefore cannot hold it.
    end = f"END-{hashlib.sha256(script.encode(errors='replace')).hexdigest()[:32]}"
    return f"""\
# syntax=docker/dockerfile:1
# Repeats run {recorded.id}:
#   docker build -t run - < Dockerfile
#   docker run --rm run
# `--build-arg REPOSITORY=…` says where else the repository is cloned from.
# An accelerator needs its driver on the host and `--gpus all`; data that the run read from
# elsewhere is given with `--volume`.
FROM python:{version}-slim
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends git \\
 && rm -rf /var/lib/apt/lists/*
ARG REPOSITORY
COPY <<'{end}' /repeat.sh
{script}{end}
RUN ["sh", "/repeat.sh", "/run-again", "lay-out"]
CMD ["sh", "/repeat.sh", "/run-again", "run"]
"""

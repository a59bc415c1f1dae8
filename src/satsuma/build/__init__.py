"""The builder: a Dockerfile and a context become an image, step by step, with a cache.

Owns stages, variables in their scopes, the cache, COPY and ADD, and the classic output stream (`Step 1/6 : …`).  Must
not know HTTP, nor how a container is started: RUN goes through the `StepRunner` that the engine hands in.

    options    what a client may ask for
    context    the build context: spooled tar → directory, `.dockerignore`, which Dockerfile
    args       ARG scopes
    sources    the left side of COPY and ADD: wildcards, checksums, downloads, other stages
    copying    the right side: files into the tree of the next layer
    cache      parent + instruction + checksums → image
    stage      one instruction after the other
    builder    the whole build, its output, and what is cleaned up after it

Source: docs.docker.com/reference/dockerfile/; Docker's classic builder observed for output, history and errors.
"""

from satsuma.build.builder import Builder
from satsuma.build.options import BuildOptions, Ulimit
from satsuma.build.runner import ImagePuller, MountSpec, RunStep, StepOutput, StepRunner

__all__ = [
    "BuildOptions",
    "Builder",
    "ImagePuller",
    "MountSpec",
    "RunStep",
    "StepOutput",
    "StepRunner",
    "Ulimit",
]

"""Experiments by name: dataclasses of parameters, each with a method `run` that returns numbers for JSON."""

from __future__ import annotations

from benchmarks.study.gradient import Gradient
from benchmarks.study.one_batch import OneBatch
from benchmarks.study.through_verl import ThroughVerl
from benchmarks.study.train import Train

EXPERIMENTS = {"one_batch": OneBatch, "train": Train, "gradient": Gradient, "through_verl": ThroughVerl}

"""A driver to kill: trains the backbone of a run (see cell_runs) in a process of its own.

python train_driver.py RUN SETTING...
"""

from __future__ import annotations

import sys

import ray
from cell_runs import backbone_stage, small

from cotray.runs import Run
from cotray.stages import train_backbone
from cotray.stages.cluster import connect

if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    connect()
    train_backbone.run(small(*sys.argv[2:]), backbone_stage(Run(sys.argv[1])))

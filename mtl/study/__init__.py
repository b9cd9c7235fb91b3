"""Studies: a matrix of runs as one file; planned, run by workers, watched from elsewhere."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.study.cells import Cell, cells_of, expand_grid
    from mtl.study.driving import drive
    from mtl.study.executing import execute_task
    from mtl.study.file import Study, list_studies, read_study
    from mtl.study.planning import Node, StudyPlan, plan_study
    from mtl.study.work import Desk, Outcome, Places

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "cells": ["Cell", "cells_of", "expand_grid"],
        "driving": ["drive"],
        "executing": ["execute_task"],
        "file": ["Study", "list_studies", "read_study"],
        "planning": ["Node", "StudyPlan", "plan_study"],
        "work": ["Desk", "Outcome", "Places"],
    },
)

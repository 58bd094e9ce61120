"""Stages: the only place where Ray meets the algorithms; one file per stage."""

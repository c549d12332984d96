"""Commands around the work: check, lab."""

import click

from ..lab import LAB, launch

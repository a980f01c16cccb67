"""Tests of the package alone: no other program, no root, no network."""

"""Tests that other programs judge: each needs the tools that it names."""

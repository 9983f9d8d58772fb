"""Tests of gatekeeper.hub."""

"""Hosts of the greatest length."""

LABEL_63 = "a" * 63
NAME_253 = ".".join([LABEL_63, LABEL_63, LABEL_63, "b" * 61])
BASE_251 = NAME_253[2:]  # the longest after "*."

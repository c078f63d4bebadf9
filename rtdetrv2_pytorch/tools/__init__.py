"""Entries for `python -m rtdetrv2_pytorch.tools.*`; the commands are in `rtdetrv2.commands`."""

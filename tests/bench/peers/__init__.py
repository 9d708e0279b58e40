"""`make bench-peers`: our gateway beside what others use for the same, each in its environment.

Peers are no dependency of anything here: the target installs them below `.peers`, and removing that
directory removes them.
"""

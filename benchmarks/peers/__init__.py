"""Kinglet beside its peers: the same teacher, images and scoring; `make bench-peers`.

Nothing is imported here: `worker` and `recipes` run in the peers' environments, which have no Kinglet.
"""

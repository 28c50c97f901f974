"""Turns the forms in which pictures with captions are found into a manifest: ``train.jsonl`` and ``test.jsonl``.

A reader for each form (``folder.py``, ``table.py``, ``coco.py``, ``cub.py``, ``flowers.py``) gives back a
:class:`~clipgan.data.sources.pictures.Source`; ``making.py`` finds the form, splits and writes.
"""

"""Jobs as they are handed in; a module of its own, because every folder of tests has a conftest."""

from __future__ import annotations

from framewake.service.store import NewJob, new_id


def new_job(owner="local", model="toy", callback=None):
    """A job that no worker needs to be able to make."""
    return NewJob(new_id("video"), owner, model, {"steps": 2}, 64, 64, callback)

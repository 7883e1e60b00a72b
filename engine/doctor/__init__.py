"""``penstock doctor``: whether this machine can run the main job, and what to change where it cannot."""

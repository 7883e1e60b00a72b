"""Jobs on videos: frames are taken, left out, embedded and written."""

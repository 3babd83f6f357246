"""Track objects in video files: a resumable job, its exports, and drawn videos."""
